"""What a mesh's file says that trimesh reads otherwise: files that were cut off, and corners that count backwards.

Each function takes a file's name and content and gives the content that trimesh reads as it is meant, or refuses it.
"""

from __future__ import annotations

import re

__all__ = ["whole_obj", "whole_off", "whole_stl"]


def whole_off(name: str, content: bytes) -> bytes:
    """The file, unless it was cut off: trimesh reads what is there."""
    text = "\n".join(line.split("#")[0] for line in content.decode("utf-8", "replace").splitlines())
    words = re.sub(r"^\s*(ST)?C?N?4?n?OFF", " ", text).split()  # some writers forget the line break after OFF
    try:
        vertices, faces = int(words[0]), int(words[1])
    except (IndexError, ValueError) as error:
        raise ValueError(f"read_mesh: {name} does not begin with OFF and the numbers of vertices and faces.") from error
    least = 3 + 3 * vertices + 4 * faces
    if len(words) < least:
        raise ValueError(f"read_mesh: {name} is truncated: {len(words)} numbers, at least {least} were announced.")
    return content


def whole_stl(name: str, content: bytes) -> bytes:
    """The triangles alone, unless the file was cut off: trimesh reads that, or bytes behind them, as an empty mesh.

    Many binary files begin with "solid" all the same; but no text has zero bytes, and numbers of triangles do.
    """
    count = int.from_bytes(content[80:84], "little")
    binary = b"\0" in content[:84]
    text = content.lstrip()
    if not binary and text[:5].lower() == b"solid" and b"facet" in text[:1024].lower():
        if b"endsolid" not in text[-512:].lower():
            raise ValueError(f"read_mesh: {name} is truncated: the text ends without 'endsolid'.")
        return text.lower()
    if len(content) < 84:
        raise ValueError(f"read_mesh: {name} is truncated: {len(content)} bytes, the header alone has 84.")
    if len(content) < 84 + 50 * count:
        raise ValueError(f"read_mesh: {name} is truncated: {len(content)} of {84 + 50 * count} bytes.")
    return content[: 84 + 50 * count]


def whole_obj(name: str, content: bytes) -> bytes:
    """The file with corners that count from its beginning.

    −1 is the vertex last read before the face, so −1 in the middle of a file is not the last of all; trimesh counts
    back from the end of the file, and takes 0 for the last as well.
    """
    content = content.replace(b"\\\r\n", b" ").replace(b"\\\n", b" ")  # lines that go on
    if not re.search(rb"^[ \t]*f\b.*[ \t](-\d|0+([/ \t\r]|$))", content, re.M):
        return content
    lines, seen = [], 0
    for number, line in enumerate(content.decode("latin-1").split("\n"), 1):
        words = line.split("#")[0].split()
        if words[:1] == ["v"]:
            seen += 1
        elif words[:1] == ["f"]:
            line = " ".join(["f", *(str(_corner(word, seen, name, number)) for word in words[1:])])
        lines.append(line)
    return "\n".join([*lines, ""]).encode("latin-1")


def _corner(word: str, seen: int, name: str, line: int) -> int:
    """The number from 1 of the vertex in `7`, `-2` or `-2/5/1`, after so many vertices."""
    try:
        corner = int(word.split("/")[0])
    except ValueError:
        raise ValueError(f"read_mesh: line {line} of {name} has the corner {word!r}, expected a number.") from None
    if corner == 0 or corner < -seen:
        raise ValueError(
            f"read_mesh: line {line} of {name} has the corner {corner} after {seen} vertices; they count from 1, or "
            "from -1 backwards."
        )
    return corner if corner > 0 else seen + 1 + corner
