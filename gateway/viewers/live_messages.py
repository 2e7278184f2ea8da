"""The messages of a live view's page, and nothing else: a message that is none of these closes the socket."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from gateway.core.json_text import well_formed
from gateway.domain import live_screen
from gateway.http.models import Body

_TabId = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")]
_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Delta = Annotated[float, Field(ge=-100_000, le=100_000, allow_inf_nan=False)]
_Modifiers = Annotated[int, Field(ge=0, le=15)]


class Seen(Body):
    """The page has drawn the picture with this number."""

    type: Literal["seen"]
    picture: Annotated[int, Field(ge=1)]


class Show(Body):
    """Show one tab, or, with null, always the active one. A viewer with control also brings it to the front."""

    type: Literal["show"]
    tab: _TabId | None


class Mouse(Body):
    type: Literal["mouse"]
    tab: _TabId
    move: live_screen.MouseMove
    x: _Share
    y: _Share
    button: live_screen.Button
    buttons: Annotated[int, Field(ge=0, le=31)]
    clicks: Annotated[int, Field(ge=0, le=3)]
    modifiers: _Modifiers


class Wheel(Body):
    type: Literal["wheel"]
    tab: _TabId
    x: _Share
    y: _Share
    delta_x: _Delta
    delta_y: _Delta
    modifiers: _Modifiers


class Key(Body):
    type: Literal["key"]
    tab: _TabId
    down: bool
    key: Annotated[str, Field(min_length=1, max_length=32)]
    code: Annotated[str, Field(pattern=r"^[A-Za-z0-9]{0,32}$")]
    key_code: Annotated[int, Field(ge=0, le=255)]
    location: Annotated[int, Field(ge=0, le=3)]
    repeats: bool
    modifiers: _Modifiers


class Text(Body):
    type: Literal["text"]
    tab: _TabId
    text: Annotated[str, Field(min_length=1)]


class Navigate(Body):
    type: Literal["navigate"]
    tab: _TabId
    url: Annotated[str, Field(min_length=1, max_length=32_768)]


class Go(Body):
    type: Literal["go"]
    tab: _TabId
    to: live_screen.Direction


Input = Mouse | Wheel | Key | Text | Navigate | Go
_MESSAGE: TypeAdapter[Seen | Show | Input] = TypeAdapter(Annotated[Seen | Show | Input, Field(discriminator="type")])


def read_message(text: str) -> Seen | Show | Input:
    """Raises ValidationError. Half of a surrogate pair, as in text that was cut before it was copied, is U+FFFD."""
    try:
        return _MESSAGE.validate_json(text)
    except ValidationError:
        mended = well_formed(text)
        if mended == text:
            raise
        return _MESSAGE.validate_json(mended)
