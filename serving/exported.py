"""An exported run, served without torch: numpy, pandas and onnxruntime are enough.

    from serving.exported import ExportedRun
    from serving.item_index import ItemIndex

    run, index = ExportedRun("exported"), ItemIndex("index")
    best = index.top_k(run.encode_user({"user_id": 42, "gender": "M", "age": 25, "occupation": 8}), 100)

Shapes: B users, Q user heads, N items, G item heads, K head size.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from preprocessing.encode import TowerEncoder, load_encoders
from preprocessing.errors import UserError, in_words
from preprocessing.files import chunks
from preprocessing.one_row import RowEncoder
from serving.choices import check_installed
from serving.raw_rows import check_rows, with_statistics

USER_TOWER, ITEM_TOWER, SCORER = "user_tower.onnx", "item_tower.onnx", "scorer.onnx"
ENCODERS, MANIFEST, FORMAT = "encoders.json", "manifest.json", 2
WEIGHTS = ".data"  # behind the name of a tower that is larger than a file of ONNX may be: where its weights are


class ExportedRun:
    """What serving/export.py wrote, with the `encode_users` and `encode_items` of a TrainedRun.

    It can be copied and sent to other processes, which open its files themselves.

    Args:
        folder: where it stands.
        num_threads: of each session of onnxruntime.
    Raises UserError where the folder holds no export, a file that is not the one that was written, or one beside a
    tower that the manifest does not name; and where onnxruntime is not installed.
    """

    def __init__(self, folder: str | Path, num_threads: int = 1):
        check_installed(["onnxruntime"], "requirements-serving.txt")
        self.folder, self.num_threads = Path(folder), num_threads
        self._sessions = {}
        path = self.folder / MANIFEST
        try:
            self.manifest = json.loads(path.read_bytes())
            if self.manifest["format"] != FORMAT:
                raise UserError(f"{path}: expected format {FORMAT}, got {self.manifest['format']}; export anew.")
            self.checkpoint, self.item_id = self.manifest["checkpoint"], self.manifest["item_id"]
            known = self.manifest["sha256"]
            for name in (USER_TOWER, ITEM_TOWER, SCORER):
                if name + WEIGHTS not in known and (self.folder / (name + WEIGHTS)).exists():
                    raise UserError(
                        f"{self.folder / (name + WEIGHTS)}: expected weights that {MANIFEST} names, got others; export "
                        "anew."
                    )
            for name, expected in known.items():
                if sha256(self.folder / name) != expected:
                    raise UserError(f"{self.folder / name}: expected the sha256 {expected}, got another; export anew.")
        except FileNotFoundError as error:
            raise UserError(f"{error.filename}: expected a file of an exported run, got none; export anew.") from error
        except UserError:
            raise
        except OSError as error:  # whose files may be whole
            raise UserError(
                f"{error.filename or path}: expected a file of an exported run that can be read, got "
                f"{error.strerror or error}; check its permissions and the disk."
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path}: expected the manifest of an exported run, got {in_words(error)}; export anew."
            ) from error
        self.user_encoder, self.item_encoder = load_encoders(self.folder / ENCODERS)
        self._user_row, self._of_thread = RowEncoder(self.user_encoder), threading.local()

    def encode_users(self, frame: pd.DataFrame, statistics: dict[str, np.ndarray] | None = None) -> np.ndarray:
        """Heads (B, Q, K) float32 of raw users, a row each; a value that training never saw counts as unknown.

        Args:
            statistics: features, (B, D) each, in the place of those that the encoder would look up; see
                serving/counters.py.
        """
        return self._encode(USER_TOWER, self.user_encoder, frame, statistics)

    def encode_user(self, row: Mapping[str, object], statistics: dict[str, np.ndarray] | None = None) -> np.ndarray:
        """Heads (Q, K) float32 of one raw user, a dict by column: `encode_users` of that row, bit for bit, sooner.

        Args:
            statistics: as for `encode_users`, (1, D) each.
        """
        session = self._session(USER_TOWER)
        bound = getattr(self._of_thread, "bound", None)
        if bound is None or bound.session is not session:
            bound = self._of_thread.bound = _BoundRow(session)
        return bound(with_statistics(self._user_row(row), statistics))

    def encode_items(self, frame: pd.DataFrame) -> np.ndarray:
        """Heads (N, G, K) float32 of raw items, a row each; a value that training never saw counts as unknown."""
        return self._encode(ITEM_TOWER, self.item_encoder, frame)

    def score(self, users_BQK: np.ndarray, items_NGK: np.ndarray) -> np.ndarray:
        """Logits (B, N) by the exported scorer; serving/maxsim.py gives the same without it."""
        return self._session(SCORER).run(None, {"user": users_BQK, "items": items_NGK})[0]

    def _encode(
        self, tower: str, encoder: TowerEncoder, frame: pd.DataFrame, statistics: dict[str, np.ndarray] | None = None
    ) -> np.ndarray:
        check_rows(frame)
        features = with_statistics(encoder.encode(frame), statistics)
        if not len(frame):  # older versions of onnxruntime fail at a mean over no rows
            heads = self.manifest["num_user_heads"] if tower == USER_TOWER else self.manifest["num_heads"]
            return np.empty((0, heads, self.manifest["head_dim"]), np.float32)
        return self._session(tower).run(None, features)[0]

    def _session(self, name: str):
        # A forked child has none of the threads of a session that was opened before, and opens its own.
        key = name, os.getpid() if self.num_threads > 1 else 0
        if key not in self._sessions:
            # Its threads for telemetry are no more in a forked child either, which would wait for them when it ends.
            os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = self.num_threads
            path, providers = str(self.folder / name), ["CPUExecutionProvider"]
            self._sessions[key] = onnxruntime.InferenceSession(path, options, providers=providers)
            if self.num_threads > 1:
                _with_threads.add(self._sessions[key])
        return self._sessions[key]

    def __getstate__(self) -> dict:
        # A session is of one process; and another one may stand in another folder.
        return self.__dict__ | {"folder": self.folder.absolute(), "_sessions": {}, "_of_thread": None}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state, _of_thread=threading.local())


class _BoundRow:
    """A session's call for one row, its arrays allocated ahead; for one thread."""

    def __init__(self, session):
        self.session, self._binding = session, session.io_binding()
        self._inputs, self._output = {}, None

    def __call__(self, features: dict[str, np.ndarray]) -> np.ndarray:
        """The output of the row, (Q, K)."""
        if self._output is None:
            self._bind(features)
        for name, array in self._inputs.items():
            np.copyto(array, features[name])
        self.session.run_with_iobinding(self._binding)
        return self._output[0].copy()

    def _bind(self, features: dict[str, np.ndarray]) -> None:
        output = np.empty_like(self.session.run(None, features)[0])  # which refuses what does not fit
        self._inputs = {name: np.empty_like(array) for name, array in features.items()}
        for name, array in self._inputs.items():
            self._binding.bind_cpu_input(name, array)
        name = self.session.get_outputs()[0].name
        self._binding.bind_output(name, "cpu", 0, output.dtype, output.shape, output.ctypes.data)
        self._output = output


_with_threads = weakref.WeakSet()


def _keep_sessions() -> None:
    """In a forked child: never end its parent's sessions, which would wait for threads that only the parent has."""
    for session in _with_threads:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))


if hasattr(os, "register_at_fork"):  # Windows forks nothing
    os.register_at_fork(after_in_child=_keep_sessions)


def sha256(path: Path) -> str:
    """sha256 of a file, in hex."""
    digest = hashlib.sha256()
    for chunk in chunks(path):
        digest.update(chunk)
    return digest.hexdigest()
