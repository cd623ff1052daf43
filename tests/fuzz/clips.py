"""Clips of sound that clients send: decoded, cut, resampled."""

from __future__ import annotations

import base64
import io
import math
import warnings
import wave
from array import array

import soundfile

from launcher.gateway.media.audio import AudioJob, Cut, cut
from launcher.gateway.media.jobs import BadPicture
from tests.fuzz.media import is_sentence
from tests.fuzz.target import Target

MAX_SECONDS = 5.0
JOBS = tuple(
    AudioJob(12.5, 12, pad, rate, max_seconds=MAX_SECONDS, max_decoded_bytes=2_000_000, is_base64=is_base64)
    for pad, rate, is_base64 in ((False, 16_000, False), (True, 16_000, False), (False, 8_000, False), (False, 8_000, True))
)  # fmt: skip


def clips(data: bytes) -> None:
    """A clip within its budget that can be read, or a sentence."""
    job, data = JOBS[data[0] % len(JOBS) if data else 0], data[1:]
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # numpy's, of samples beyond all bounds; a worker is silent, too
        found = cut(data, job)
    if isinstance(found, BadPicture):
        is_sentence(found)
        return
    assert 0 < found.seconds_in <= MAX_SECONDS
    assert 0 <= found.silence <= found.seconds_out
    assert found.tokens <= job.max_tokens
    readable(found, job)


def readable(found: Cut, job: AudioJob) -> None:
    with wave.open(io.BytesIO(found.data)) as file:
        samples = file.getnframes()
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, job.sample_rate)
        assert len(file.readframes(samples)) == 2 * samples
    assert samples == round(found.seconds_out * job.sample_rate) <= job.max_samples
    assert samples == job.max_samples or not job.pad
    assert found.tokens == job.tokens(samples)


def small(kind: str, coding: str, rate: int = 8_000, channels: int = 1) -> bytes:
    """A twentieth of a second of a tone."""
    tone = array("d", (math.sin(at / 5) / 2 for at in range(rate // 20 * channels)))
    out = io.BytesIO()
    with soundfile.SoundFile(out, "w", rate, channels, coding, format=kind) as file:
        file.buffer_write(tone, "float64")
    return out.getvalue()


FILES = (
    small("WAV", "PCM_16"),
    small("WAV", "PCM_U8", channels=2),
    small("WAV", "FLOAT", 16_000),
    small("WAVEX", "PCM_24"),
    small("FLAC", "PCM_16"),
    small("OGG", "VORBIS"),
    small("OGG", "OPUS"),
    small("MP3", "MPEG_LAYER_III"),
)
SEEDS = (
    *(bytes([number % 3]) + data for number, data in enumerate(FILES)),
    b"\x03" + base64.b64encode(FILES[1]),
    b"\0#!AMR\n",
    b"\0hello",
)
WORDS = tuple(
    b"RIFF|WAVE|fmt |data|fact|LIST|PEAK|\1\0\1\0|\3\0|\7\0|\xfe\xff|fLaC|OggS|OpusHead|\1vorbis|ID3\3|\xff\xfb\x90|Xing|Info|"
    b"\xff\xff\xff\xff|\0\0\0\0|\x7f\xff\xff\xff|\0\0\xc0\x7f|\0\0\x80\x7f|\x40\x1f\0\0|\x80\xbb\0\0".split(b"|")
)

TARGETS = {"clips": Target(clips, SEEDS, WORDS, ("launcher", "soundfile"))}
