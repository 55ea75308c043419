"""libjpeg's own interface, for pictures whose sampling factors TurboJPEG has no name for.

TurboJPEG, and with it simplejpeg, refuses such files though libjpeg-turbo decodes them: 3 × 1, 4:1:0, 1 × 4,
subsampled CMYK. The library is the one that Pillow brings. The structures are those of jpeglib.h with the ABI
of libjpeg 6b (`JPEG_LIB_VERSION` 62), which is what libjpeg-turbo has by default.

libjpeg must not go on after a fatal error, and C's way out of it, longjmp, does not exist in Python. So each
decode has a thread of its own, which is left waiting for ever where the error is fatal. A process with such a
thread ends after its answer (`is_spent`).
"""

import ctypes
import functools
import threading
from ctypes import POINTER, Structure, c_char, c_char_p, c_double, c_int, c_long, c_ubyte, c_uint, c_void_p

import numpy as np
import numpy.typing as npt
from PIL import _imaging

from imgdl_pipeline.core.jpeg.header import Buffer

ABI = "6.2"
"""As Pillow spells `JPEG_LIB_VERSION` 62."""

GRAYSCALE, CMYK, YCCK = 1, 4, 5
"""libjpeg's J_COLOR_SPACE."""

SCALES = range(1, 9)
"""Eighths at which libjpeg-turbo decodes."""

MESSAGE_CHARS = 200
"""JMSG_LENGTH_MAX."""


class LibjpegError(Exception):
    """The file cannot be decoded, or not without a warning; says what libjpeg says."""


class _ErrorManager(Structure):
    _fields_ = (
        ("error_exit", c_void_p),
        ("emit_message", c_void_p),
        ("output_message", c_void_p),
        ("format_message", c_void_p),
        ("reset_error_mgr", c_void_p),
        ("msg_code", c_int),
        ("msg_parm", c_char * 80),
        ("trace_level", c_int),
        ("num_warnings", c_long),
        ("jpeg_message_table", c_void_p),
        ("last_jpeg_message", c_int),
        ("addon_message_table", c_void_p),
        ("first_addon_message", c_int),
        ("last_addon_message", c_int),
    )


class _Decompress(Structure):
    _fields_ = (
        ("err", POINTER(_ErrorManager)),
        ("mem", c_void_p),
        ("progress", c_void_p),
        ("client_data", c_void_p),
        ("is_decompressor", c_int),
        ("global_state", c_int),
        ("src", c_void_p),
        ("image_width", c_uint),
        ("image_height", c_uint),
        ("num_components", c_int),
        ("jpeg_color_space", c_int),
        ("out_color_space", c_int),
        ("scale_num", c_uint),
        ("scale_denom", c_uint),
        ("output_gamma", c_double),
        ("buffered_image", c_int),
        ("raw_data_out", c_int),
        ("dct_method", c_int),
        ("do_fancy_upsampling", c_int),
        ("do_block_smoothing", c_int),
        ("quantize_colors", c_int),
        ("dither_mode", c_int),
        ("two_pass_quantize", c_int),
        ("desired_number_of_colors", c_int),
        ("enable_1pass_quant", c_int),
        ("enable_external_quant", c_int),
        ("enable_2pass_quant", c_int),
        ("output_width", c_uint),
        ("output_height", c_uint),
        ("out_color_components", c_int),
        ("output_components", c_int),
        ("rec_outbuf_height", c_int),
        ("actual_number_of_colors", c_int),
        ("colormap", c_void_p),
        ("output_scanline", c_uint),
        ("input_scan_number", c_int),
        ("input_iMCU_row", c_uint),
        ("output_scan_number", c_int),
        ("output_iMCU_row", c_uint),
        ("coef_bits", c_void_p),
        ("quant_tbl_ptrs", c_void_p * 4),
        ("dc_huff_tbl_ptrs", c_void_p * 4),
        ("ac_huff_tbl_ptrs", c_void_p * 4),
        ("data_precision", c_int),
        ("comp_info", c_void_p),
        ("progressive_mode", c_int),
        ("arith_code", c_int),
        ("arith_dc_L", c_ubyte * 16),
        ("arith_dc_U", c_ubyte * 16),
        ("arith_ac_K", c_ubyte * 16),
        ("restart_interval", c_uint),
        ("saw_JFIF_marker", c_int),
        ("JFIF_major_version", c_ubyte),
        ("JFIF_minor_version", c_ubyte),
        ("density_unit", c_ubyte),
        ("X_density", ctypes.c_ushort),
        ("Y_density", ctypes.c_ushort),
        ("saw_Adobe_marker", c_int),
        ("Adobe_transform", c_ubyte),
        ("CCIR601_sampling", c_int),
        ("marker_list", c_void_p),
        ("max_h_samp_factor", c_int),
        ("max_v_samp_factor", c_int),
        ("min_DCT_scaled_size", c_int),
        ("total_iMCU_rows", c_uint),
        ("sample_range_limit", c_void_p),
        ("comps_in_scan", c_int),
        ("cur_comp_info", c_void_p * 4),
        ("MCUs_per_row", c_uint),
        ("MCU_rows_in_scan", c_uint),
        ("blocks_in_MCU", c_int),
        ("MCU_membership", c_int * 10),
        ("Ss", c_int),
        ("Se", c_int),
        ("Ah", c_int),
        ("Al", c_int),
        ("unread_marker", c_int),
        ("master", c_void_p),
        ("main", c_void_p),
        ("coef", c_void_p),
        ("post", c_void_p),
        ("inputctl", c_void_p),
        ("marker", c_void_p),
        ("entropy", c_void_p),
        ("idct", c_void_p),
        ("upsample", c_void_p),
        ("cconvert", c_void_p),
        ("cquantize", c_void_p),
    )


_OnError = ctypes.CFUNCTYPE(None, POINTER(_Decompress))
_OnMessage = ctypes.CFUNCTYPE(None, POINTER(_Decompress), c_int)
_Format = ctypes.CFUNCTYPE(None, POINTER(_Decompress), c_char_p)


@functools.cache
def _library() -> ctypes.CDLL:
    """Return Pillow's libjpeg: a library's handle finds what the libraries that it needs export."""
    library = ctypes.CDLL(_imaging.__file__)
    library.jpeg_std_error.restype = POINTER(_ErrorManager)
    return library


_stuck_threads = 0


def is_spent() -> bool:
    """Return whether a fatal error has left a thread behind in this process."""
    return _stuck_threads > 0


def decode_gray(data: Buffer, least_side: int) -> npt.NDArray[np.uint8]:
    """Decode a whole picture to gray, reduced to at least so many pixels a side where it has them.

    Args:
        data: The file.
        least_side: Pixels that the shorter side keeps.

    Returns:
        Shades by row and column.

    Raises:
        LibjpegError: libjpeg fails, or warns at all; or this Pillow has a libjpeg of another ABI.
        MemoryError: There was not enough memory.
    """
    if _imaging.jpeglib_version != ABI:
        raise LibjpegError("its sampling factors cannot be checked with the libjpeg of this Pillow")
    decoder = _Decoder(bytes(data), least_side)
    thread = threading.Thread(target=decoder.run, daemon=True)
    thread.start()
    try:
        return decoder.result()
    finally:
        if not decoder.is_stuck:
            thread.join()


class _Decoder:
    """One decompression: libjpeg's structures, and what it says meanwhile."""

    def __init__(self, data: bytes, least_side: int) -> None:
        self._library, self._data, self._least_side = _library(), data, least_side
        self._is_done = threading.Event()
        self.is_stuck = False
        self._pixels: npt.NDArray[np.uint8] | None = None
        self._failure: BaseException | None = None
        self._warnings: list[str] = []
        self._errors, self._state = _ErrorManager(), _Decompress()
        self._state.err = self._library.jpeg_std_error(ctypes.byref(self._errors))
        # the callbacks are kept here, because libjpeg only has their addresses
        self._on_error, self._on_message = _OnError(self._stop), _OnMessage(self._listen)
        self._errors.error_exit = ctypes.cast(self._on_error, c_void_p)
        self._errors.emit_message = ctypes.cast(self._on_message, c_void_p)
        self._format = _Format(self._errors.format_message)

    def run(self) -> None:
        """Decode, in a thread of its own."""
        try:
            self._pixels = self._decode()
        except BaseException as error:  # noqa: BLE001 -- the thread that waits raises it
            self._failure = error
        self._is_done.set()

    def result(self) -> npt.NDArray[np.uint8]:
        """Wait for the thread, and return or raise what it did."""
        self._is_done.wait()
        if self._pixels is None:
            raise self._failure or LibjpegError("no picture")
        if self._warnings:
            raise LibjpegError(self._warnings[0])
        return self._pixels

    def _listen(self, state: "ctypes._Pointer[_Decompress]", level: int) -> None:
        if level < 0 and not self._warnings:  # 0 and above are traces; the first warning is enough
            self._warnings.append(self._message(state))

    def _stop(self, state: "ctypes._Pointer[_Decompress]") -> None:
        """Take a fatal error, and never return to libjpeg."""
        global _stuck_threads
        _stuck_threads += 1
        self.is_stuck = True
        self._failure = LibjpegError(self._message(state))
        self._is_done.set()
        threading.Event().wait()

    def _message(self, state: "ctypes._Pointer[_Decompress]") -> str:
        text = ctypes.create_string_buffer(MESSAGE_CHARS)
        self._format(state, text)
        return text.value.decode("ascii", "replace")

    def _decode(self) -> npt.NDArray[np.uint8]:
        state, library = ctypes.byref(self._state), self._library
        library.jpeg_CreateDecompress(state, c_int(62), ctypes.c_size_t(ctypes.sizeof(_Decompress)))
        try:
            library.jpeg_mem_src(state, self._data, ctypes.c_ulong(len(self._data)))
            library.jpeg_read_header(state, c_int(1))
            is_cmyk = self._state.jpeg_color_space in (CMYK, YCCK)
            self._state.out_color_space = CMYK if is_cmyk else GRAYSCALE
            shorter = min(self._state.image_width, self._state.image_height)
            self._state.scale_num = next((n for n in SCALES if -(-shorter * n // 8) >= self._least_side), 8)
            self._state.scale_denom = 8
            library.jpeg_start_decompress(state)
            pixels = self._rows()
            library.jpeg_finish_decompress(state)
        finally:
            library.jpeg_destroy_decompress(state)
        return _gray_of_cmyk(pixels) if is_cmyk else pixels[:, :, 0]

    def _rows(self) -> npt.NDArray[np.uint8]:
        shape = (self._state.output_height, self._state.output_width, self._state.output_components)
        pixels = np.empty(shape, dtype=np.uint8)
        first, step = pixels.ctypes.data, pixels.strides[0]
        rows = (c_void_p * shape[0])(*(first + number * step for number in range(shape[0])))
        while (done := self._state.output_scanline) < shape[0]:
            left = ctypes.byref(rows, done * ctypes.sizeof(c_void_p))
            self._library.jpeg_read_scanlines(ctypes.byref(self._state), left, c_uint(shape[0] - done))
        return pixels


def _gray_of_cmyk(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return shades of CMYK as JPEGs have it, inverted: 255 is no ink."""
    weights = np.array([0.299, 0.587, 0.114], dtype=np.float32)
    colours = pixels[:, :, :3].astype(np.float32) * pixels[:, :, 3:].astype(np.float32) / 255
    gray: npt.NDArray[np.uint8] = (colours @ weights).round().astype(np.uint8)
    return gray
