"""A zero-footprint viewer beside the archive: OHIF's files, served from our own origin, on our own DICOMweb.

The files are the site's (`web.viewer`, the folder `dist` of OHIF): this module gives them a base path, a configuration that
names our DICOMweb service, and a Content Security Policy that lets WebAssembly and workers run and nothing leave for elsewhere.
"""

import json
import re
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from pacs.model.errors import ConfigurationError, NotFound
from pacs.web import auth
from pacs.web.door import door, in_thread, service_url

BASE = "/viewer"
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; worker-src 'self' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "frame-ancestors 'none'; base-uri 'self'; form-action 'none'"
)
"""OHIF compiles shaders' helpers and WebAssembly at run time; connections stay at home."""
_ROOTED = re.compile(r'((?:href|src|content)=")/(?!/)')


def check(folder: str) -> None:
    """Raise `ConfigurationError` where a folder is named that holds no viewer."""
    if folder and not (Path(folder) / "index.html").is_file():
        raise ConfigurationError(
            "web.viewer names a folder without index.html: unpack the npm package @ohif/app, and name its folder dist"
        )


def routes(folder: str) -> list[BaseRoute]:
    """Return the viewer's routes, none where no viewer is configured."""
    check(folder)
    if not folder:
        return []
    return [
        Route(f"{BASE}/app-config.js", auth.for_people(configuration), name="viewer_configuration"),
        Route(f"{BASE}/{{path:path}}", auth.for_people(files), name="viewer"),
    ]


async def configuration(request: Request) -> Response:
    """Tell the viewer where we are."""
    root = service_url(request)
    source = {
        "friendlyName": "mini-pacs",
        "qidoRoot": root,
        "wadoRoot": root,
        "wadoUriRoot": root,
        "qidoSupportsIncludeField": True,
        "imageRendering": "wadors",
        "thumbnailRendering": "thumbnail",
        "enableStudyLazyLoad": True,
        "supportsFuzzyMatching": False,
        "supportsWildcard": True,
        "bulkDataURI": {"enabled": True, "relativeResolution": "studies"},
        "omitQuotationForMultipartRequest": True,
    }
    config = {
        "routerBasename": BASE,
        "extensions": [],
        "modes": [],
        "customizationService": {},
        "showStudyList": True,
        "maxNumberOfWebWorkers": 3,
        "showLoadingIndicator": True,
        "strictZSpacingForVolumeViewport": True,
        "investigationalUseDialog": {"option": "configure", "days": 1},
        "defaultDataSourceName": "mini-pacs",
        "dataSources": [
            {
                "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
                "sourceName": "mini-pacs",
                "configuration": source,
            }
        ],
    }
    return Response(f"window.config = {json.dumps(config)};\n", media_type="text/javascript")


async def files(request: Request) -> Response:
    """Serve a file of the viewer, or, for what is a page of it, its first page with paths that begin at our base."""
    folder = Path(door(request).settings.web.viewer).resolve()
    path = (folder / request.path_params["path"]).resolve()
    headers = {"Content-Security-Policy": POLICY}
    if path.is_file() and path.is_relative_to(folder) and path.name != "index.html":
        return await in_thread(door(request).read, _file, path, headers)
    if "." in path.name:
        raise NotFound("The viewer has no such file.")
    page = (folder / "index.html").read_text(encoding="utf-8")
    page = _ROOTED.sub(rf"\1{BASE}/", page).replace('PUBLIC_URL="/"', f'PUBLIC_URL="{BASE}/"')
    return HTMLResponse(page, headers=headers | {"Cache-Control": "no-store"})


def _file(path: Path, headers: dict[str, str]) -> Response:
    """Return a file; scripts and style sheets, which are built for the root of a host, with their paths at our base."""
    base = BASE.encode()
    moves = {
        ".js": (b'__webpack_require__.p = "/";', b'__webpack_require__.p = "' + base + b'/";', "text/javascript"),
        ".css": (b"url(/", b"url(" + base + b"/", "text/css"),
    }
    if path.suffix in moves:
        before, after, kind = moves[path.suffix]
        if before in (text := path.read_bytes()):
            # Names of files hold a digest of what is in them.
            kept = {"Cache-Control": "private, max-age=86400"}
            return Response(text.replace(before, after), headers=headers | kept, media_type=kind)
    return FileResponse(path, headers=headers)
