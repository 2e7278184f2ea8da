"""Results of steps as JSON of a limited size, with a stated form for what JSON does not have (docs/execute.md).

What an expression returns is written by a script in its page, since only there an undefined value, a cycle and a date
are what they are. A page can change what that script finds, but only for itself, and the size is limited again.
"""

from __future__ import annotations

import base64
import json
import math
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any

# Bytes of a step's value.
limit: ContextVar[int] = ContextVar("limit", default=256 * 1024)

_MAX_SAFE_INTEGER = 2**53 - 1
_DEEPEST = 40

# Called with the elements of the library's own call, if any, and an object of what is asked for.
_EVALUATE = r"""async (...given) => {
  const { source, args, limit } = given.pop();
  let text = source;
  try {
    new Function('return (' + source + '\n)');
    text = '(' + source + '\n)';
  } catch (error) {
    // Statements, or an expression that is none: eval reports what is wrong.
  }
  let value = globalThis.eval(text);
  if (typeof value === 'function') value = value(...given, ...args);
  value = await value;

  let left = limit;
  let truncated = false;
  const above = new Map();
  const tag = (type, value) => (value === undefined ? { $type: type } : { $type: type, value });
  const cut = (text) => {
    if (text.length > left) {
      text = text.slice(0, Math.max(left, 0));
      truncated = true;
    }
    left -= text.length;
    return text;
  };
  const bytes = (view) => {
    // Whole groups of base64, in whose letters the beginning of a secret is that of the whole.
    const most = Math.max(0, Math.floor(left / 4) * 3);
    const shown = view.subarray(0, most);
    if (view.length > most) truncated = true;
    left -= Math.ceil(shown.length * 4 / 3);
    let binary = '';
    for (let at = 0; at < shown.length; at += 8192) binary += String.fromCharCode(...shown.subarray(at, at + 8192));
    return btoa(binary);
  };
  const visit = (item, path, depth) => {
    left -= 4;
    if (left <= 0 || depth > DEEPEST) {
      truncated = true;
      return tag('truncated');
    }
    switch (typeof item) {
      case 'string': return cut(item);
      case 'boolean': return item;
      case 'undefined': return tag('undefined');
      case 'number':
        if (Object.is(item, -0)) return tag('number', '-0');
        return Number.isFinite(item) ? item : tag('number', String(item));
      case 'bigint': return tag('bigint', cut(String(item)));
      case 'symbol': return tag('symbol', cut(String(item)));
      case 'function': return tag('function', cut(String(item.name)));
    }
    if (item === null) return null;
    if (above.has(item)) return tag('cycle', above.get(item));
    above.set(item, path);
    try {
      return inside(item, path, depth);
    } finally {
      above.delete(item);
    }
  };
  const list = (items, path, depth) => {
    const found = [];
    for (const part of items) {
      if (left <= 0) {
        truncated = true;
        break;
      }
      found.push(visit(part, path + '[' + found.length + ']', depth + 1));
    }
    return found;
  };
  const inside = (item, path, depth) => {
    if (item instanceof Date) return tag('date', Number.isNaN(item.getTime()) ? 'Invalid Date' : item.toISOString());
    if (item instanceof RegExp) return tag('regexp', cut(String(item)));
    if (item instanceof Error) {
      return tag('error', { name: cut(String(item.name)), message: cut(String(item.message)) });
    }
    if (item instanceof ArrayBuffer) return tag('buffer', bytes(new Uint8Array(item)));
    if (ArrayBuffer.isView(item)) {
      return tag('buffer', bytes(new Uint8Array(item.buffer, item.byteOffset, item.byteLength)));
    }
    if (item instanceof Map) return tag('map', list(item.entries(), path, depth));
    if (item instanceof Set) return tag('set', list(item.values(), path, depth));
    if (item instanceof Promise) return tag('promise');
    if (item === globalThis) return tag('window');
    if (globalThis.Node && item instanceof Node) {
      return tag('node', cut((item.outerHTML || item.nodeName).slice(0, 200)));
    }
    if (typeof item.toJSON === 'function') return visit(item.toJSON(), path, depth + 1);
    if (Array.isArray(item)) return list(item, path, depth);
    const found = Object.create(null);
    for (const name of Object.keys(item)) {
      if (left <= 0) {
        truncated = true;
        break;
      }
      found[cut(name)] = visit(item[name], path + '.' + name, depth + 1);
    }
    return '$type' in found ? tag('object', Object.entries(found)) : found;
  };
  const written = JSON.stringify(visit(value, '$', 0));
  return JSON.stringify({ written, truncated });
}""".replace("DEEPEST", str(_DEEPEST))


@dataclass(frozen=True, slots=True)
class Value:
    """A value that is JSON already; `truncated` where something of it is missing."""

    json: Any
    truncated: bool = False


async def evaluated(
    on: Any, expression: str, arg: Any = None, *, args: list[Any] | None = None, **options: Any
) -> Value:
    """What `expression` returns in the page of `on`: a page, a frame, a locator or a handle of the library.

    A function is called with the element or object of `on`, if it is one, and with `args`, or with `arg`.
    """
    if args is None:
        args = [] if arg is None else [arg]
    asked = {"source": expression, "args": args, "limit": limit.get()}
    answer = json.loads(await on.evaluate(_EVALUATE, asked, **options))
    value = bounded(json.loads(answer["written"]))
    return Value(value.json, value.truncated or answer["truncated"] is True)


def bounded(value: Any) -> Value:
    """A value of Python, or of a library's function, as JSON within the limit."""
    writing = _Writing(limit.get())
    return Value(writing.written(value, "$", 0, ()), writing.truncated)


class _Writing:
    def __init__(self, left: int) -> None:
        self.left = left
        self.truncated = False

    def written(self, value: Any, path: str, depth: int, above: tuple[int, ...]) -> Any:
        self.left -= 4
        # Twice as deep as the script in the page goes, whose results have further levels.
        if self.left <= 0 or depth > 2 * _DEEPEST:
            self.truncated = True
            return tagged("truncated")
        match value:
            case None | bool():
                return value
            case str():
                return self._cut(value)
            case int():
                return value if abs(value) <= _MAX_SAFE_INTEGER else tagged("bigint", self._cut(str(value)))
            case float():
                return _number(value)
            case datetime():
                return tagged("date", value.isoformat())
            case bytes() | bytearray():
                return tagged("buffer", self._bytes(bytes(value)))
            case _:
                return self._container(value, path, depth, above)

    def _container(self, value: Any, path: str, depth: int, above: tuple[int, ...]) -> Any:
        if id(value) in above:
            return tagged("cycle", path)
        if isinstance(value, dict):
            return self._object(value, path, depth, (*above, id(value)))
        if isinstance(value, (list, tuple, set, frozenset)):
            return self._list(list(value), path, depth, (*above, id(value)))
        return tagged("object", self._cut(type(value).__name__))

    def _object(self, value: dict[Any, Any], path: str, depth: int, above: tuple[int, ...]) -> dict[str, Any]:
        found = {}
        for name, item in value.items():
            if self.left <= 0:
                self.truncated = True
                break
            found[self._cut(str(name))] = self.written(item, f"{path}.{name}", depth + 1, above)
        return found

    def _list(self, value: list[Any], path: str, depth: int, above: tuple[int, ...]) -> list[Any]:
        found = []
        for place, item in enumerate(value):
            if self.left <= 0:
                self.truncated = True
                break
            found.append(self.written(item, f"{path}[{place}]", depth + 1, above))
        return found

    def _cut(self, text: str) -> str:
        # A lone surrogate can't be written as UTF-8.
        text = text.encode("utf-8", "replace").decode()
        if len(text) > self.left:
            self.truncated = True
            text = text[: max(0, self.left)]
        self.left -= len(text)
        return text

    def _bytes(self, value: bytes) -> str:
        # Whole groups of base64, in whose letters the beginning of a secret is that of the whole.
        most = max(0, self.left // 4 * 3)
        if len(value) > most:
            self.truncated = True
        written = base64.b64encode(value[:most]).decode()
        self.left -= len(written)
        return written


def tagged(kind: str, value: Any = None) -> dict[str, Any]:
    """The stated form of what JSON does not have."""
    return {"$type": kind} if value is None else {"$type": kind, "value": value}


def _number(value: float) -> Any:
    if math.isfinite(value):
        return tagged("number", "-0") if value == 0 and math.copysign(1, value) < 0 else value
    return tagged("number", "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity")
