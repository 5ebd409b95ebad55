"""An exported run, served without torch: numpy, pandas and onnxruntime are enough.

    from serving.exported import ExportedRun
    from serving.item_index import ItemIndex

    run, index = ExportedRun("exported"), ItemIndex("index")
    best = index.top_k(run.encode_users(user_frame)[0], 100)

Shapes: B users, Q user heads, N items, G item heads, K head size.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from preprocessing.encode import TowerEncoder, load_encoders
from preprocessing.errors import UserError
from preprocessing.files import chunks

USER_TOWER, ITEM_TOWER, SCORER = "user_tower.onnx", "item_tower.onnx", "scorer.onnx"
ENCODERS, MANIFEST, FORMAT = "encoders.json", "manifest.json", 1


class ExportedRun:
    """What serving/export.py wrote, with the `encode_users` and `encode_items` of a TrainedRun.

    Args:
        folder: where it stands.
        num_threads: of each session of onnxruntime.
    Raises UserError where the folder holds no export, or a file that is not the one that was written.
    """

    def __init__(self, folder: str | Path, num_threads: int = 1):
        self.folder, self.num_threads = Path(folder), num_threads
        path = self.folder / MANIFEST
        try:
            self.manifest = json.loads(path.read_bytes())
            if self.manifest["format"] != FORMAT:
                raise UserError(f"{path}: expected format {FORMAT}, got {self.manifest['format']}; export anew.")
            self.checkpoint, self.item_id = self.manifest["checkpoint"], self.manifest["item_id"]
            for name, expected in self.manifest["sha256"].items():
                if sha256(self.folder / name) != expected:
                    raise UserError(f"{self.folder / name}: expected the sha256 {expected}, got another; export anew.")
        except FileNotFoundError as error:
            raise UserError(f"{error.filename}: expected a file of an exported run, got none; export anew.") from error
        except UserError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: expected the manifest of an exported run, got {error!r}; export anew.") from error
        self.user_encoder, self.item_encoder = load_encoders(self.folder / ENCODERS)

    def encode_users(self, frame: pd.DataFrame) -> np.ndarray:
        """Heads (B, Q, K) float32 of raw users, a row each; a value that training never saw counts as unknown."""
        return self._encode(self._user_tower, self.user_encoder, frame)

    def encode_items(self, frame: pd.DataFrame) -> np.ndarray:
        """Heads (G, N, K) float32 of raw items, a row each; a value that training never saw counts as unknown."""
        return np.ascontiguousarray(self._encode(self._item_tower, self.item_encoder, frame).transpose(1, 0, 2))

    def score(self, users_BQK: np.ndarray, items_GNK: np.ndarray) -> np.ndarray:
        """Logits (B, N) by the exported scorer; serving/maxsim.py gives the same without it."""
        return self._scorer.run(None, {"user": users_BQK, "items": items_GNK})[0]

    @staticmethod
    def _encode(session, encoder: TowerEncoder, frame: pd.DataFrame) -> np.ndarray:
        return session.run(None, encoder.encode(frame))[0]

    @cached_property
    def _user_tower(self):
        return self._session(USER_TOWER)

    @cached_property
    def _item_tower(self):
        return self._session(ITEM_TOWER)

    @cached_property
    def _scorer(self):
        return self._session(SCORER)

    def _session(self, name: str):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.num_threads
        return onnxruntime.InferenceSession(str(self.folder / name), options, providers=["CPUExecutionProvider"])


def sha256(path: Path) -> str:
    """sha256 of a file, in hex."""
    digest = hashlib.sha256()
    for chunk in chunks(path):
        digest.update(chunk)
    return digest.hexdigest()
