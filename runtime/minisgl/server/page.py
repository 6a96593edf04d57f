"""The page for people at `/`: one file, sent with a policy under which a browser runs its own script and no other.

Knows nothing of the model: the page asks the API as any client does, with the key that its reader types.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

PAGE = Path(__file__).with_name("page.html").read_text(encoding="utf-8")


def source(tag: str) -> str:
    """The policy's name of what stands in the page's one `<tag>`: its hash, so a changed byte does not run."""
    (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", PAGE, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


HEADERS = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            f"script-src {source('script')}",
            f"style-src {source('style')}",
            "connect-src 'self'",
            "img-src data:",  # the empty icon
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",  # a text that becomes HTML is an error, not an injection
            "trusted-types 'none'",
        )
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # the page and the server it talks to are of one version
}


async def page(request: Request) -> Response:
    """A page to chat with the model."""
    return Response(PAGE, headers=HEADERS, media_type="text/html")
