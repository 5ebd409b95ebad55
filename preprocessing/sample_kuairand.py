"""Synthetic raw files in the layout of KuaiRand-Pure."""

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

# The full data: rows of the standard logs, and lines of the two tables.
KUAIRAND_ROWS, KUAIRAND_USERS, KUAIRAND_VIDEOS = 1_436_609, 27_285, 7_583
CLICK_RATE = 0.44
LONG_VIEWS = 0.7  # of the clicks
REPEATED = 0.026  # of the rows: those that repeat another of the same user, video and time
WITHOUT_LINE = 0.005  # videos that are shown and have no line of features
DAYS = pd.date_range("2022-04-08", "2022-05-08")
LOGS = {"log_standard_4_08_to_4_21_pure.csv": 14, "log_standard_4_22_to_5_08_pure.csv": 17}  # with their days
FIRST_MS, DAY_MS, HOUR_MS = 1_649_347_200_000, 86_400_000, 3_600_000  # the first day begins so in Beijing
ACTIVITY = ("full_active", "high_active", "middle_active", "low_active", "UNKNOWN")
FOLLOWED = ("0", "(0,10]", "(10,50]", "(50,100]", "500+")
FANS = ("0", "[1,10)", "[10,100)", "[100,1k)", "[1k,5k)")
FRIENDS = ("0", "[1,5)", "[5,30)", "[30,60)", "250+")
REGISTERED = ("15-30", "31-60", "91-180", "366-730", "730+")
UPLOADS = ("LongImport", "Web", "ShortImport", "Kmovie", "UNKNOWN")
# Distinct values of onehot_feat0 to 17. Number 4 and those from 12 on have gaps, and are therefore written as "1.0".
ONE_HOT = (2, 7, 50, 1471, 15, 34, 3, 118, 454, 7, 5, 5, 2, 2, 2, 2, 2, 2)
NUM_TAGS, NUM_TABS = 60, 15


def write_kuairand_sample(
    folder: Path,
    num_rows: int = 60_000,
    num_users: int | None = None,
    num_videos: int | None = None,
    seed: int = 1023,
) -> Path:
    """Write two logs, both tables and the clicks' probabilities into a new folder.

    A click depends on the video, the user's mood, and the match of hidden tastes that come partly from the user's
    activity and the video's first tag. Seven clicks in ten are long views, so the probabilities rank those as well.
    Without numbers of users and videos, they keep the proportions of the full data. All or nothing; the same arguments
    give the same bytes; an existing folder is left as it is. Returns the folder.
    """
    folder = Path(folder)
    if folder.exists():
        return folder
    num_users = num_users or max(20, round(num_rows * KUAIRAND_USERS / KUAIRAND_ROWS))
    num_videos = num_videos or max(20, round(num_rows * KUAIRAND_VIDEOS / KUAIRAND_ROWS))
    num_shown = num_videos + max(1, round(num_videos * WITHOUT_LINE))
    rng = np.random.default_rng(seed)
    activity = rng.integers(0, len(ACTIVITY), num_users)
    tags = rng.integers(1, NUM_TAGS, (num_shown, 2))

    taste = 0.3 * rng.normal(size=(num_users, TASTE_SIZE)) + rng.normal(size=(len(ACTIVITY), TASTE_SIZE))[activity]
    style = 0.3 * rng.normal(size=(num_shown, TASTE_SIZE)) + rng.normal(size=(NUM_TAGS, TASTE_SIZE))[tags[:, 0]]
    mood, quality = 0.6 * rng.normal(size=num_users), 0.8 * rng.normal(size=num_shown)
    user, video = (
        rng.permutation(np.repeat(np.arange(size, dtype=np.int32), how_often(rng, size, num_rows, sigma)))
        for size, sigma in ((num_users, 0.8), (num_shown, 1.2))
    )
    times = np.sort(rng.integers(0, len(DAYS) * DAY_MS, num_rows))
    repeated = 1 + np.flatnonzero(rng.random(num_rows - 1) < REPEATED)
    for values in (user, video, times):
        values[repeated] = values[repeated - 1]
    logit = 0.5 * np.einsum("rk,rk->r", taste[user], style[video]) + mood[user] + quality[video]
    probability = with_mean(logit.astype(np.float32), CLICK_RATE)
    clicked = rng.random(num_rows) < probability
    clicked[repeated] = clicked[repeated - 1]
    users, videos = _users(rng, activity), _videos(rng, tags[:num_videos])

    def write(place: Path) -> None:
        users.to_csv(place / "user_features_pure.csv", index=False)
        videos.to_csv(place / "video_features_basic_pure.csv", index=False)
        first, day = 0, 0
        for name, num_days in LOGS.items():
            day += num_days
            end = np.searchsorted(times, day * DAY_MS)
            with open(place / name, "w") as file:
                for part in blocks(end - first, name):
                    rows = slice(first + part.start, first + part.stop)
                    log = _log(rng, user[rows], video[rows], times[rows], clicked[rows])
                    log.to_csv(file, index=False, header=part.start == 0)
            first = end
        np.save(place / SAMPLE_PROBABILITIES, probability)

    return write_folder(folder, write)


def _log(rng, user: np.ndarray, video: np.ndarray, times: np.ndarray, clicked: np.ndarray) -> pd.DataFrame:
    size = len(user)
    duration = rng.integers(5_000, 200_000, size)
    rare = {
        name: (clicked & (rng.random(size) < 0.02)).astype(int) for name in ("like", "follow", "comment", "forward")
    }
    return pd.DataFrame(
        {
            "user_id": user,
            "video_id": video,
            "date": DAYS.strftime("%Y%m%d").to_numpy()[times // DAY_MS],
            "hourmin": times % DAY_MS // HOUR_MS * 100,
            "time_ms": FIRST_MS + times,
            "is_click": clicked.astype(int),
            **{f"is_{name}": values for name, values in rare.items()},
            "is_hate": 0,
            "long_view": (clicked & (rng.random(size) < LONG_VIEWS)).astype(int),
            "play_time_ms": (duration * rng.random(size) * np.where(clicked, 1, 0.1)).astype(int),
            "duration_ms": duration,
            "profile_stay_time": 0,
            "comment_stay_time": 0,
            "is_profile_enter": 0,
            "is_rand": 0,
            "tab": rng.integers(0, NUM_TABS, size),
        }
    )


def _users(rng, activity: np.ndarray) -> pd.DataFrame:
    size = len(activity)

    def counted(name: str, ranges: tuple[str, ...]) -> dict[str, np.ndarray]:
        place = rng.integers(0, len(ranges), size)
        return {name: place * 10, f"{name}_range": np.array(ranges)[place]}

    one_hot = {}
    for number, count in enumerate(ONE_HOT):
        values = rng.integers(0, count, size)
        has_gaps = number == 4 or number >= 12
        one_hot[f"onehot_feat{number}"] = with_gaps(rng, values.astype(float), 0.03) if has_gaps else values
    return pd.DataFrame(
        {
            "user_id": np.arange(size),
            "user_active_degree": np.array(ACTIVITY)[activity],
            "is_lowactive_period": 0,
            "is_live_streamer": np.where(rng.random(size) < 0.2, 1, -124),
            "is_video_author": rng.integers(0, 2, size),
            **counted("follow_user_num", FOLLOWED),
            **counted("fans_user_num", FANS),
            **counted("friend_user_num", FRIENDS),
            **counted("register_days", REGISTERED),
            **one_hot,
        }
    )


def _videos(rng, tags: np.ndarray) -> pd.DataFrame:
    size = len(tags)
    tag_texts = [f"{first},{second}" if second % 4 == 0 else str(first) for first, second in tags.tolist()]
    return pd.DataFrame(
        {
            "video_id": np.arange(size),
            "author_id": rng.integers(0, round(size * 0.86) + 1, size),
            "video_type": np.where(rng.random(size) < 0.01, "AD", "NORMAL"),
            "upload_dt": "2022-04-08",
            "upload_type": np.array(UPLOADS)[rng.integers(0, len(UPLOADS), size)],
            "visible_status": 0.0,
            "video_duration": with_gaps(rng, rng.integers(5_000, 200_000, size).astype(float), 0.03),
            "server_width": 720.0,
            "server_height": 1280.0,
            "music_id": rng.integers(1, 10**10, size),
            "music_type": with_gaps(rng, np.full(size, 9.0), 0.03),
            "tag": with_gaps(rng, np.array(tag_texts), 0.013),
        }
    )
