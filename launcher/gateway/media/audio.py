"""Brings a clip to a model's rate and a token budget: decoded, mixed to one channel, resampled, cut or padded, as WAV.

``cut`` is a task for a worker process: it reads hostile files. The libraries are imported with the first clip.

Reading is libsndfile's (soundfile), resampling libsoxr's (soxr, HQ): 1.3 MB and 0.2 MB of wheels beside numpy, which
soundfile needs; scipy would be 35 MB, and numpy alone would need a filter of our own. 30 s of stereo take 40 ms from WAV,
60 to 80 from FLAC, MP3 and Vorbis, 240 from Opus, on one core; resampling is 6 ms of that.
"""

from __future__ import annotations

import io
import math
import os
import time
import wave
from binascii import Error as Base64Error
from binascii import a2b_base64
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import msgspec

from launcher.gateway.media.jobs import BadPicture
from launcher.gateway.refusal import Refused, bad_request
from launcher.gateway.timing import Stage

BLOCK = 65536  # frames that are decoded at once: only the mix of them is kept
UNKNOWN_LENGTH = 2**48  # frames; libsndfile gives about 2**63 where a header does not tell
_EPSILON = 1e-6  # of a token, for rates that binary fractions cannot hold
_NEEDS = ("soundfile", "soxr")
_INSTALL = "pip install 'vllm-profile-launcher[audio]'"

# What is read, as libsndfile names it; it knows some thirty more formats, of which nobody needs any.
_CODINGS = {
    "WAV": ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"),
    "WAVEX": ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"),
    "FLAC": ("PCM_S8", "PCM_16", "PCM_24"),
    "OGG": ("VORBIS", "OPUS"),
    "MP3": ("MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III"),
}
_CONVERT = "Send it as WAV, MP3, FLAC or Ogg: ffmpeg -i clip -ar 16000 -ac 1 clip.wav makes one"
# Where it is, what it is, its name: what people send that is not read.
_OTHERS = (
    (4, b"ftyp", "MP4 or M4A"),
    (0, b"\x1a\x45\xdf\xa3", "WebM or Matroska"),
    (0, b"#!AMR", "AMR"),
    (0, b"FORM", "AIFF"),
    (0, b"caff", "CAF"),
    (0, b"RF64", "RF64"),
    (0, b"0&\xb2u", "WMA"),
    (0, b"\xff\xf1", "AAC"),
    (0, b"\xff\xf9", "AAC"),
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    (0, b"\x89PNG", "a PNG picture"),
)


class AudioJob(msgspec.Struct, frozen=True):
    """What the model takes, and what is read at all."""

    tokens_per_second: float
    max_tokens: int
    pad: bool = False  # with silence, up to the budget
    sample_rate: int = 16_000  # the model's, in Hz
    max_seconds: float = 300.0  # of a clip that is read and cut; a longer one is refused
    max_channels: int = 8
    sample_rates: tuple[int, int] = (4_000, 192_000)  # of a clip, in Hz
    max_decoded_bytes: int = 128_000_000  # of the part that is kept, before it is resampled
    is_base64: bool = False  # the bytes are base64 text, which the worker is to decode

    @property
    def max_samples(self) -> int:
        """Samples at the model's rate that the budget holds."""
        return math.floor(self.max_tokens * self.sample_rate / self.tokens_per_second + _EPSILON)

    def tokens(self, samples: int) -> int:
        """Tokens of so many samples at the model's rate; one that is begun counts."""
        return math.ceil(samples * self.tokens_per_second / self.sample_rate - _EPSILON)


class Cut(msgspec.Struct, frozen=True, tag="cut"):
    """A clip as the engine gets it: WAV, 16 bit, one channel. ``seconds_out`` has the silence in it."""

    data: bytes
    seconds_in: float
    seconds_out: float
    silence: float  # seconds that were added
    tokens: int
    decode_s: float
    resample_s: float
    encode_s: float
    mime: str = "audio/wav"

    @property
    def was_cut(self) -> bool:
        """Whether some of the clip is missing."""
        return self.seconds_in > self.seconds_out - self.silence + 0.001

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What took how long, in seconds, by the names that pictures have for it."""
        return (b"decode", self.decode_s), (b"scale", self.resample_s), (b"encode", self.encode_s)


def missing() -> str | None:
    """Why clips cannot be read on this machine, as a sentence; None if they can."""
    names = [name for name in _NEEDS if find_spec(name) is None]
    if not names:
        return None
    return f"Clips cannot be read on this server: {' and '.join(names)} {'is' if len(names) == 1 else 'are'} not installed ({_INSTALL})."


def cut(data: bytes | memoryview, job: AudioJob) -> Cut | BadPicture:
    """The clip within the budget, or why not; never raises for what the file does, MemoryError included."""
    if (why := missing()) is not None:
        return BadPicture("audio_not_installed", why, 501)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's: each of its threads would take memory, for nothing
    try:
        return _cut(_bytes_of(data, job), job)
    except Refused as refused:
        return BadPicture(refused.refusal.reason, refused.refusal.message, refused.refusal.status)
    except MemoryError:
        return BadPicture("audio_too_large", "The clip takes more memory than one may. Send a shorter one.")


def _bytes_of(data: bytes | memoryview, job: AudioJob) -> bytes:
    if not job.is_base64:
        return bytes(data)
    try:
        return a2b_base64(data, strict_mode=True)
    except (Base64Error, ValueError) as error:
        raise bad_request(
            "audio_base64", f"The clip's base64 cannot be read: {error}. It has no line breaks."
        ) from None


def _cut(data: bytes, job: AudioJob) -> Cut:
    begun = time.perf_counter()
    samples, rate, seconds_in = _decoded(data, job)
    decoded = time.perf_counter()
    if rate != job.sample_rate:
        samples = import_module("soxr").resample(samples, rate, job.sample_rate, quality="HQ")
    samples = samples[: job.max_samples]
    silence = job.max_samples - len(samples) if job.pad else 0
    resampled = time.perf_counter()
    wav = _wav(samples, silence, job.sample_rate)
    count = len(samples) + silence
    return Cut(
        wav,
        seconds_in=seconds_in,
        seconds_out=count / job.sample_rate,
        silence=silence / job.sample_rate,
        tokens=job.tokens(count),
        decode_s=decoded - begun,
        resample_s=resampled - decoded,
        encode_s=time.perf_counter() - resampled,
    )


def _decoded(data: bytes, job: AudioJob) -> tuple[Any, int, float]:
    """What fits the budget, mixed to one channel; its rate; and the seconds of the whole clip."""
    _check_beginning(data)
    soundfile = import_module("soundfile")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as clip:
            _check_header(clip, job)
            # soundfile seeks to where it stands after each read, which fails where a FLAC's header does not tell its length
            clip.seekable = lambda: False
            return _mixed(clip, job)
    except soundfile.LibsndfileError as error:
        raise bad_request(
            "audio_broken", f"The clip cannot be decoded, it is cut short or damaged: {error.error_string.strip(' .')}."
        ) from None


def _check_beginning(data: bytes) -> None:
    if not data:
        raise bad_request("audio_empty", "The clip has no bytes.")
    for at, mark, name in _OTHERS:
        if data[at : at + len(mark)] == mark:
            raise bad_request("audio_format", f"The clip is {name}, which is not read here. {_CONVERT}.")
    is_wav = data[:4] == b"RIFF" and data[8:12] == b"WAVE"
    is_mpeg = data[:3] == b"ID3" or (data[0] == 0xFF and len(data) > 1 and data[1] & 0xE0 == 0xE0 and data[1] & 0x06)
    if not (is_wav or is_mpeg or data[:4] in (b"fLaC", b"OggS")):
        raise bad_request(
            "audio_format", f"What was sent as a clip is none: its first bytes are {data[:8].hex(' ')}. {_CONVERT}."
        )
    promised = int.from_bytes(data[4:8], "little")
    # A program that writes to a pipe cannot know the size, and fills in the largest number.
    if is_wav and len(data) - 8 < promised < 0x7FFF0000:
        raise bad_request(
            "audio_broken",
            f"The clip is cut short: {promised + 8} bytes by its header, of which {len(data)} were sent.",
        )


def _check_header(clip: Any, job: AudioJob) -> None:
    if clip.subtype not in _CODINGS.get(clip.format, ()):
        raise bad_request(
            "audio_format", f"The clip is {clip.format} with {clip.subtype}, which is not read here. {_CONVERT}."
        )
    if clip.channels > job.max_channels:
        raise bad_request(
            "audio_channels", f"The clip has {clip.channels} channels: at most {job.max_channels} are read."
        )
    lowest, highest = job.sample_rates
    if not lowest <= clip.samplerate <= highest:
        raise bad_request(
            "audio_rate", f"The clip has {clip.samplerate} samples a second: {lowest} to {highest} are read."
        )
    if _is_known(clip.frames):
        _check_length(clip.frames / clip.samplerate, job)
    kept_bytes = 4 * (min(clip.frames, _window(clip, job)) + BLOCK * clip.channels)
    if kept_bytes > job.max_decoded_bytes:
        raise bad_request(
            "audio_too_large",
            f"The clip would be {kept_bytes} bytes when decoded: at most {job.max_decoded_bytes} are allowed. Send it at"
            f" {job.sample_rate} samples a second.",
        )


def _check_length(seconds: float, job: AudioJob) -> None:
    if seconds > job.max_seconds:
        raise bad_request(
            "audio_too_long",
            f"The clip is {seconds:.1f} s long or more: at most {job.max_seconds:g} s are read. Send a part of it.",
        )


def _is_known(frames: int) -> bool:
    return 0 < frames < UNKNOWN_LENGTH


def _window(clip: Any, job: AudioJob) -> int:
    """Frames at the clip's rate that the budget holds, and a tenth of a second for the filter's end."""
    rate = int(clip.samplerate)
    return math.ceil(job.max_samples * rate / job.sample_rate) + rate // 10


def _mixed(clip: Any, job: AudioJob) -> tuple[Any, int, float]:
    numpy = import_module("numpy")
    window, is_known, read, blocks = _window(clip, job), _is_known(clip.frames), 0, []
    # Where the header does not tell the length, all is decoded to learn it, though no more is kept.
    while read < window or not is_known:
        block = clip.read(BLOCK, dtype="float32", always_2d=True)
        if not len(block):
            break
        if not numpy.isfinite(block).all():
            raise bad_request("audio_broken", "The clip has samples that are no numbers.")
        if read < window:
            blocks.append(block.mean(axis=1)[: window - read])
        read += len(block)
        _check_length(read / clip.samplerate, job)
    if not read:
        raise bad_request("audio_empty", "The clip has no samples: it is silent for want of any.")
    if is_known and read < min(clip.frames, window) * 0.99:
        raise bad_request(
            "audio_broken", f"The clip is cut short: {read} samples were found of {clip.frames} by its header."
        )
    frames = clip.frames if is_known else read
    return numpy.concatenate(blocks), clip.samplerate, frames / clip.samplerate


def _wav(samples: Any, silence: int, rate: int) -> bytes:
    numpy = import_module("numpy")
    whole = numpy.clip(numpy.rint(samples * 32767), -32768, 32767).astype("<i2").tobytes()
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(whole + bytes(2 * silence))
    return out.getvalue()
