"""An example server, without torch: POST /score scores candidates, GET /health says what is served (docs/serving.md).

EXPORT=RUN/onnx INDEX=RUN/index [SCORER=compiled] uvicorn --factory serving.server:application --no-access-log
"""

import asyncio
import os
import sys
from contextlib import asynccontextmanager

import orjson
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from preprocessing.errors import UserError
from serving.exported import ExportedRun
from serving.item_index import ItemIndex


def application() -> Starlette:
    """A worker's application; raises UserError where the folders hold no run, or an index of other weights."""
    run = ExportedRun(folder_of("EXPORT"))
    index = ItemIndex(folder_of("INDEX"), run.checkpoint, scorer=os.environ.get("SCORER", "numpy"))

    async def score(request: Request) -> Response:
        try:
            question = orjson.loads(await request.body())
            if not isinstance(question, dict) or "user" not in question:
                raise UserError('expected {"user": {...}, "candidates": [...]} or with "top", got no user.')
            user, candidates = run.encode_user(question["user"]), question.get("candidates")
            if "top" in question:
                best = index.top_k(user, question["top"], candidates)
                return answer({"ids": best.ids.tolist(), "scores": best.scores})
            return answer({"ids": candidates, "scores": index.score(user, candidates)})
        except ClientDisconnect:  # in the middle of its question: nobody reads the answer
            return Response(status_code=400)
        except UserError as error:
            return answer({"error": str(error)}, 400)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            return answer({"error": f"{type(error).__name__}: {error}"}, 400)

    async def health(_: Request) -> Response:
        return answer({"items": len(index), "generation": index.generation, "weights": run.checkpoint})

    async def refresh() -> None:
        while await asyncio.sleep(1, result=True):
            try:
                await asyncio.to_thread(index.refresh)  # requests go on with the generation before
            except Exception as error:  # whatever it was, the next look may be better
                print(f"the index stays as it was: {error}", file=sys.stderr, flush=True)

    @asynccontextmanager
    async def refreshed(_: Starlette):
        task = asyncio.create_task(refresh())
        yield
        task.cancel()

    return Starlette(routes=[Route("/score", score, methods=["POST"]), Route("/health", health)], lifespan=refreshed)


def folder_of(name: str) -> str:
    """What an environment variable names; raises UserError where it is not set."""
    if not os.environ.get(name):
        raise UserError(f"${name}: expected a folder, got none; set EXPORT=RUN/onnx and INDEX=RUN/index.")
    return os.environ[name]


def answer(content: dict, status: int = 200) -> Response:
    """JSON; -inf becomes null."""
    return Response(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), status, media_type="application/json")
