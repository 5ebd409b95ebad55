"""Synthetic raw files in the layout of the Alibaba display ads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from preprocessing.synthetic import (
    SAMPLE_PROBABILITIES,
    TASTE_SIZE,
    blocks,
    how_often,
    with_gaps,
    with_mean,
    write_folder,
)

# The full data: rows of raw_sample.csv, lines of user_profile.csv and of ad_feature.csv, and distinct values.
ALIBABA_ROWS, ALIBABA_USERS, ALIBABA_ADS = 26_557_961, 1_061_768, 846_811
ALIBABA_PER_AD = {"cate_id": 6_769 / ALIBABA_ADS, "campaign_id": 0.5, "customer": 0.3, "brand": 0.118}
CLICK_RATE = 0.0514
PIDS = ("430539_1007", "430548_1007")
FIRST_SECOND, NUM_SECONDS = 1_494_000_000, 8 * 86_400
# Users who see ads and have no profile; a few ads without features beside them.
WITHOUT_PROFILE, WITHOUT_FEATURES = 0.075, 0.002


def write_alibaba_sample(
    folder: Path,
    num_rows: int = 100_000,
    num_users: int | None = None,
    num_ads: int | None = None,
    seed: int = 1023,
) -> Path:
    """Write raw_sample.csv, ad_feature.csv, user_profile.csv and the clicks' probabilities into a new folder.

    A click depends on the ad, the user's mood, and the match of hidden tastes that come partly from the profile and
    the ad's category. Without numbers of users and ads, they keep the proportions of the full data. All or nothing; the
    same arguments give the same bytes; an existing folder is left as it is. Returns the folder.
    """
    folder = Path(folder)
    if folder.exists():
        return folder
    num_users = num_users or max(20, round(num_rows * ALIBABA_USERS / ALIBABA_ROWS))
    num_ads = num_ads or max(20, round(num_rows * ALIBABA_ADS / ALIBABA_ROWS))
    rng = np.random.default_rng(seed)
    profile = pd.DataFrame(
        {
            "userid": rng.permutation(round(num_users * (1 + WITHOUT_PROFILE)))[:num_users] + 1,
            "cms_segid": rng.integers(0, 97, num_users),
            "cms_group_id": rng.integers(0, 13, num_users),
            "final_gender_code": rng.integers(1, 3, num_users),
            "age_level": rng.integers(0, 7, num_users),
            "pvalue_level": with_gaps(rng, rng.integers(1, 4, num_users), 0.54),
            "shopping_level": rng.integers(1, 4, num_users),
            "occupation": (rng.random(num_users) < 0.06).astype(int),
            "new_user_class_level ": with_gaps(rng, rng.integers(1, 5, num_users), 0.32),
        }
    )
    values = {
        name: rng.integers(1, max(2, round(num_ads * share)) + 1, num_ads) for name, share in ALIBABA_PER_AD.items()
    }
    # Drawn apart from each other: of campaigns, customers and brands only how many there are matters here.
    ads = pd.DataFrame({"adgroup_id": rng.permutation(round(num_ads * (1 + WITHOUT_FEATURES)))[:num_ads] + 1, **values})
    ads["brand"] = with_gaps(rng, ads["brand"].to_numpy(), 0.3, "NULL")
    prices = np.round(rng.lognormal(5, 1.5, num_ads), 2)
    prices[rng.random(num_ads) < 1e-4] = 99_999_999.0
    ads["price"] = prices

    taste = 0.3 * rng.normal(size=(round(num_users * (1 + WITHOUT_PROFILE)) + 1, TASTE_SIZE)).astype(np.float32)
    taste[profile["userid"]] += rng.normal(size=(13, TASTE_SIZE))[profile["cms_group_id"]]
    taste[profile["userid"]] += rng.normal(size=(7, TASTE_SIZE))[profile["age_level"]]
    style = 0.3 * rng.normal(size=(round(num_ads * (1 + WITHOUT_FEATURES)) + 1, TASTE_SIZE)).astype(np.float32)
    style[ads["adgroup_id"]] += rng.normal(size=(values["cate_id"].max() + 1, TASTE_SIZE))[values["cate_id"]]
    mood, quality = (0.3 * rng.normal(size=len(table)).astype(np.float32) for table in (taste, style))
    quality[ads["adgroup_id"]] += 0.8 * rng.normal(size=values["cate_id"].max() + 1)[values["cate_id"]]

    # Ads in order, as in the real file; every user and every ad occurs where there are rows enough.
    ad_of_row = np.repeat(np.arange(1, len(style), dtype=np.int32), how_often(rng, len(style) - 1, num_rows, 1.5))
    user_of_row = np.repeat(np.arange(1, len(taste), dtype=np.int32), how_often(rng, len(taste) - 1, num_rows, 1.0))
    rng.shuffle(user_of_row)
    logit = np.empty(num_rows, dtype=np.float32)
    for rows in blocks(num_rows):
        user, ad = user_of_row[rows], ad_of_row[rows]
        logit[rows] = 0.5 * np.einsum("rk,rk->r", taste[user], style[ad]) + mood[user] + quality[ad]
    probability = with_mean(logit, CLICK_RATE)

    def write(place: Path) -> None:
        profile.to_csv(place / "user_profile.csv", index=False)
        ads.to_csv(place / "ad_feature.csv", index=False)
        with open(place / "raw_sample.csv", "w") as file:
            for rows in blocks(num_rows, "raw_sample.csv"):
                clicked = (rng.random(rows.stop - rows.start) < probability[rows]).astype(np.int8)
                block = pd.DataFrame(
                    {
                        "user": user_of_row[rows],
                        "time_stamp": FIRST_SECOND + rng.integers(0, NUM_SECONDS, len(clicked)),
                        "adgroup_id": ad_of_row[rows],
                        "pid": np.array(PIDS)[rng.integers(0, 2, len(clicked))],
                        "nonclk": 1 - clicked,
                        "clk": clicked,
                    }
                )
                block.to_csv(file, index=False, header=rows.start == 0)
        np.save(place / SAMPLE_PROBABILITIES, probability)

    return write_folder(folder, write)
