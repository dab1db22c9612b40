"""Read and render tracker modules (MOD, S3M, XM, IT …) through the shared library libopenmpt."""

from __future__ import annotations

import ctypes
import ctypes.util
import gzip
import zlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from polyres.audio.file_names import shown
from polyres.core.errors import InputError

MODULE_SUFFIXES = (".mod", ".s3m", ".xm", ".it", ".mptm", ".stm", ".mtm", ".669", ".med", ".okt", ".ult", ".umx")
MAX_FILE_BYTES = 64 << 20
TAPS = (1, 2, 4, 8)
_STEREO_SEPARATION, _INTERPOLATION = 2, 3
_MUTE_INSTRUMENT, _TEMPO_FACTOR, _PITCH_FACTOR = 12, 2, 4
_BLOCK_SAMPLES = 8192
_MAX_NOTE = 120

_POINTER, _INT32, _DOUBLE = ctypes.c_void_p, ctypes.c_int32, ctypes.c_double
_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "ext_create_from_memory": (_POINTER, (_POINTER, ctypes.c_size_t, *(_POINTER,) * 7)),
    "ext_destroy": (None, (_POINTER,)),
    "ext_get_module": (_POINTER, (_POINTER,)),
    "ext_get_interface": (ctypes.c_int, (_POINTER, ctypes.c_char_p, _POINTER, ctypes.c_size_t)),
    "read_interleaved_float_stereo": (ctypes.c_size_t, (_POINTER, _INT32, ctypes.c_size_t, _POINTER)),
    "set_render_param": (ctypes.c_int, (_POINTER, ctypes.c_int, _INT32)),
    "set_position_seconds": (_DOUBLE, (_POINTER, _DOUBLE)),
    "get_duration_seconds": (_DOUBLE, (_POINTER,)),
    "get_metadata": (_POINTER, (_POINTER, ctypes.c_char_p)),
    "get_num_channels": (_INT32, (_POINTER,)),
    "get_num_orders": (_INT32, (_POINTER,)),
    "get_num_patterns": (_INT32, (_POINTER,)),
    "get_num_instruments": (_INT32, (_POINTER,)),
    "get_num_samples": (_INT32, (_POINTER,)),
    "get_instrument_name": (_POINTER, (_POINTER, _INT32)),
    "get_sample_name": (_POINTER, (_POINTER, _INT32)),
    "get_order_pattern": (_INT32, (_POINTER, _INT32)),
    "get_pattern_num_rows": (_INT32, (_POINTER, _INT32)),
    "get_pattern_row_channel_command": (ctypes.c_uint8, (_POINTER, _INT32, _INT32, _INT32, ctypes.c_int)),
}


class Note(NamedTuple):
    """One note of a module: its row counted from the start, its channel, its instrument from 0, its key."""

    row: int
    channel: int
    instrument: int
    key: int


class _Interactive(ctypes.Structure):
    """Pointers to the functions of libopenmpt's interface "interactive", in its order."""

    _fields_ = [(f"function_{number}", ctypes.c_void_p) for number in range(16)]


@cache
def _library() -> dict[str, Any]:
    """Load libopenmpt and describe the functions that are used."""
    name = ctypes.util.find_library("openmpt") or "libopenmpt.so.0"
    try:
        library = ctypes.CDLL(name)
    except OSError as error:
        raise InputError(
            "the library libopenmpt, which plays tracker modules, is not installed; install it "
            "(Debian, Ubuntu: apt-get install libopenmpt0; macOS: brew install libopenmpt)"
        ) from error
    functions = {}
    for short, (result, arguments) in _SIGNATURES.items():
        prefix = "openmpt_module_"
        function = getattr(library, f"{prefix}{short}")
        function.restype, function.argtypes = result, list(arguments)
        functions[short] = function
    free = library.openmpt_free_string
    free.restype, free.argtypes = None, [_POINTER]
    functions["free_string"] = free
    return functions


def require_openmpt() -> None:
    """Check that modules can be played."""
    _library()


class Module:
    """One tracker module that is open; a context manager."""

    def __init__(self, path: Path) -> None:
        call = _library()
        self._data = _read_file(path)
        self._handle = call["ext_create_from_memory"](self._data, len(self._data), *(None,) * 7)
        if not self._handle:
            raise InputError(f"'{shown(path)}' is not a tracker module; give a .mod, .s3m, .xm or .it file")
        self._module = call["ext_get_module"](self._handle)
        self.length_s = float(call["get_duration_seconds"](self._module))
        self.format = self._text(call["get_metadata"](self._module, b"type"))
        self.artist = self._text(call["get_metadata"](self._module, b"artist"))
        self.channels = int(call["get_num_channels"](self._module))
        self.has_instruments = call["get_num_instruments"](self._module) > 0
        kind = "instrument" if self.has_instruments else "sample"
        count = int(call[f"get_num_{kind}s"](self._module))
        self.instruments = [self._text(call[f"get_{kind}_name"](self._module, number)) for number in range(count)]
        interface = _Interactive()
        call["ext_get_interface"](self._handle, b"interactive", ctypes.byref(interface), ctypes.sizeof(interface))
        self._interface = interface

    def __enter__(self) -> Self:
        """Return the open module."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Close it."""
        _library()["ext_destroy"](self._handle)

    def _text(self, pointer: int | None) -> str:
        if not pointer:
            return ""
        text = ctypes.string_at(pointer).decode("utf-8", "replace")
        _library()["free_string"](pointer)
        return text

    def notes(self) -> list[Note]:
        """List the notes in the order of play, each order once."""
        call, module = _library(), self._module
        found: list[Note] = []
        first_row, latest = 0, dict[int, int]()
        for order in range(call["get_num_orders"](module)):
            pattern = call["get_order_pattern"](module, order)
            there = 0 <= pattern < call["get_num_patterns"](module)
            rows = call["get_pattern_num_rows"](module, pattern) if there else 0
            for row in range(rows):
                for channel in range(self.channels):
                    instrument = call["get_pattern_row_channel_command"](module, pattern, row, channel, 1)
                    latest[channel] = instrument or latest.get(channel, 0)
                    key = call["get_pattern_row_channel_command"](module, pattern, row, channel, 0)
                    if 1 <= key <= _MAX_NOTE and latest[channel]:
                        found.append(Note(first_row + row, channel, latest[channel] - 1, key))
            first_row += rows
        return found

    def play_only(self, instruments: Iterable[int]) -> None:
        """Silence all instruments but some, counted from 0."""
        signature = ctypes.CFUNCTYPE(ctypes.c_int, _POINTER, _INT32, ctypes.c_int)
        mute = signature(getattr(self._interface, f"function_{_MUTE_INSTRUMENT}"))
        kept = set(instruments)
        for number in range(len(self.instruments)):
            mute(self._handle, number, int(number not in kept))

    def set_speed(self, tempo: float, pitch: float) -> None:
        """Play faster and higher than written."""
        signature = ctypes.CFUNCTYPE(ctypes.c_int, _POINTER, _DOUBLE)
        for number, factor in ((_TEMPO_FACTOR, tempo), (_PITCH_FACTOR, pitch)):
            if factor != 1.0:
                signature(getattr(self._interface, f"function_{number}"))(self._handle, factor)

    def blocks(
        self, length_samples: int, sample_rate_hz: int, start_s: float = 0.0, taps: int = 8, width_percent: int = 100
    ) -> Iterator[np.ndarray]:
        """Render from a moment on.

        Args:
            length_samples: samples wanted; the song may end earlier.
            start_s: where to begin, in seconds at the song's own tempo.
            taps: interpolation, one of `TAPS`: 1 is none, as old hardware did.
            width_percent: 0 is mono, 100 as written, 200 at most.

        Yields:
            float32 `[2, n]`.
        """
        call = _library()
        call["set_render_param"](self._module, _INTERPOLATION, taps)
        call["set_render_param"](self._module, _STEREO_SEPARATION, width_percent)
        if start_s > 0.0:
            call["set_position_seconds"](self._module, start_s)
        left = length_samples
        while left > 0:
            block = np.empty((min(_BLOCK_SAMPLES, left), 2), np.float32)
            read = call["read_interleaved_float_stereo"](self._module, sample_rate_hz, len(block), block.ctypes.data)
            if read == 0:
                return
            left -= read
            yield block[:read].T


def _read_file(path: Path) -> bytes:
    """Return the bytes of a module, unpacked."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if data[:2] == b"\x1f\x8b":
            with gzip.open(path) as unpacked:
                data = unpacked.read(MAX_FILE_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read the module '{shown(path)}' ({error}); replace the file") from error
    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"'{shown(path)}' has more than {MAX_FILE_BYTES >> 20} MiB, too much for a tracker module")
    return data
