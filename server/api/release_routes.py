"""Releases, the catalogue and artifacts."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, File, Form, Header, Request, Response, UploadFile
from fastapi.responses import FileResponse
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.datastructures import UploadFile as FormFile
from starlette.requests import ClientDisconnect

from fleet_protocol import strict_json
from fleet_protocol.catalogue import TargetInfo
from fleet_protocol.errors import PolicyError, TransportError
from fleet_protocol.schema import from_value
from server.api.errors import first_fault
from server.api.release_bodies import ArtifactAnswer, CatalogueBody, ReleaseAnswer, ReleasesAnswer, UploadedAnswer
from server.api.use_cases import UseCases
from server.services.artifacts import Upload
from server.services.uploading import Uploaded

_CHUNK: Final = 1024 * 1024
_FOREVER: Final = "public, max-age=31536000, immutable"
_INFO_MOST: Final = 256 * 1024
_CATALOGUE_MOST: Final = 256 * 1024 * 1024
_UPLOAD_FORMS: Final = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": CatalogueBody.model_json_schema()},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["targets"],
                    "properties": {
                        "root": {"type": "array", "items": {"type": "string", "format": "binary"}},
                        "targets": {"type": "string", "format": "binary"},
                    },
                }
            },
        },
    }
}
_RAW_FORM: Final = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def router(cases: UseCases) -> APIRouter:
    """The routes below /api/releases, /api/catalogue, /api/artifacts and /artifacts."""
    routes = APIRouter(tags=["releases"])
    _add_catalogue(routes, cases)
    _add_artifacts(routes, cases)
    return routes


def _add_catalogue(routes: APIRouter, cases: UseCases) -> None:
    @routes.get("/api/releases")
    def list_releases() -> ReleasesAnswer:
        """Every release of the verified catalogue, by package and the newest first."""
        contents = cases.catalogue.contents
        return ReleasesAnswer(releases=[ReleaseAnswer.of(each) for each in contents.releases] if contents else [])

    @routes.post("/api/catalogue", openapi_extra=_UPLOAD_FORMS)
    async def upload_catalogue(request: Request) -> UploadedAnswer:
        """Put a newer catalogue in force: the chain of roots (known ones may be left out) and the targets.

        Everything is verified as a device verifies it; then the server signs snapshot and timestamp, publishes, and
        brings every manifest in step. Send JSON, or a multipart form with the files byte for byte.
        """
        roots, targets = await _documents(request)
        return _uploaded(await run_in_threadpool(cases.uploading.upload, roots, targets))

    @routes.post("/api/releases", status_code=201)
    def add_release(
        artifact: Annotated[UploadFile, File(description="The packed artifact.")],
        info: Annotated[str, Form(description="Its description: the JSON that `fairlead-firmware pack` wrote.")],
    ) -> UploadedAnswer:
        """Add a release and sign it, where this server holds all keys (`signing = "server"`); otherwise a conflict."""
        if cases.release_desk is None:
            raise PolicyError(
                "wrong-state", "this server does not hold the offline keys: sign with fairlead-firmware, then upload"
            )
        described = _described(info)
        with cases.artifacts.upload(None, declared_bytes=artifact.size) as upload:
            while chunk := artifact.file.read(_CHUNK):
                upload.write(chunk)
            sha256, path = upload.finish()
        return _uploaded(cases.release_desk.add(path, sha256, described))


def _add_artifacts(routes: APIRouter, cases: UseCases) -> None:
    @routes.put("/api/artifacts/{sha256}", status_code=201, openapi_extra=_RAW_FORM)
    async def put_artifact(
        sha256: str, request: Request, content_length: Annotated[int | None, Header(ge=0)] = None
    ) -> ArtifactAnswer:
        """Store an artifact under its sha256; the same bytes again change nothing."""
        upload = await run_in_threadpool(cases.artifacts.upload, sha256, declared_bytes=content_length)
        try:
            length = await _receive(request, upload)
            await run_in_threadpool(upload.finish)
        finally:
            await run_in_threadpool(upload.close)
        return ArtifactAnswer(sha256=sha256, length=length)

    @routes.head("/artifacts/{sha256}", include_in_schema=False)
    @routes.get("/artifacts/{sha256}", response_class=FileResponse)
    def get_artifact(sha256: str, if_none_match: Annotated[str, Header()] = "") -> Response:
        """An artifact's bytes; without a token, for what it is was signed. Ranges are served."""
        path = cases.artifacts.path(sha256)
        tag = f'"{sha256}"'
        headers = {"ETag": tag, "Cache-Control": _FOREVER}
        if tag in if_none_match or if_none_match.strip() == "*":
            return Response(status_code=304, headers=headers)
        return FileResponse(path, media_type="application/octet-stream", headers=headers)


async def _receive(request: Request, upload: Upload) -> int:
    """Write the body as it arrives, in pieces of about 1 MiB; raises TransportError `truncated` where it ends early."""
    length, waiting = 0, bytearray()
    try:
        async for chunk in request.stream():
            waiting += chunk
            if len(waiting) >= _CHUNK:
                length += len(waiting)
                await run_in_threadpool(upload.write, bytes(waiting))
                waiting.clear()
    except ClientDisconnect:
        raise TransportError("truncated", "the upload ended early") from None
    await run_in_threadpool(upload.write, bytes(waiting))
    return length + len(waiting)


async def _documents(request: Request) -> tuple[list[bytes], bytes]:
    """Roots and targets of an upload, in either form."""
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        async with request.form() as form:
            files = await _files(form, "targets")
            if len(files) != 1:
                raise PolicyError("bad-request", "the form has not exactly one file `targets`")
            return await _files(form, "root"), files[0]
    value = strict_json.loads(await request.body(), max_size=_CATALOGUE_MOST)
    try:
        body = CatalogueBody.model_validate(value)
    except ValidationError as error:
        raise PolicyError("bad-request", first_fault(error.errors())) from None
    return [strict_json.dumps(root) for root in body.root], strict_json.dumps(body.targets)


async def _files(form: FormData, name: str) -> list[bytes]:
    parts = form.getlist(name)
    return [await part.read() if isinstance(part, FormFile) else part.encode() for part in parts]


def _described(info: str) -> TargetInfo:
    """A TargetInfo, or the whole description whose `custom` is one."""
    value: Any = strict_json.loads(info.encode(), max_size=_INFO_MOST)
    if isinstance(value, dict) and "custom" in value:
        value = value["custom"]
    return from_value(TargetInfo, value)


def _uploaded(uploaded: Uploaded) -> UploadedAnswer:
    return UploadedAnswer(
        root=uploaded.root,
        targets=uploaded.targets,
        releases=uploaded.releases,
        missing=list(uploaded.missing),
    )
