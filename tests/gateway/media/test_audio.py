"""Clips: what comes out, for real files of every format that is read, and each way in which one is refused."""

from __future__ import annotations

import base64
import io
import sys
from typing import Any

import msgspec
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from launcher.gateway.media.audio import AudioJob, Cut, cut, missing
from launcher.gateway.media.jobs import BadPicture

JOB = AudioJob(tokens_per_second=12.5, max_tokens=50)  # 4 s
FORMATS = [
    ("WAV", "PCM_16"),
    ("WAV", "PCM_U8"),
    ("WAV", "PCM_24"),
    ("WAV", "FLOAT"),
    ("WAV", "ULAW"),
    ("WAVEX", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("FLAC", "PCM_24"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]


def tone(seconds: float = 2.0, rate: int = 48_000, channels: int = 1, hertz: float = 440.0) -> Any:
    """A sine in every channel, half as loud as can be."""
    wave = 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    return np.repeat(wave[:, None], channels, axis=1)


def clip(samples: Any, rate: int = 48_000, kind: str = "WAV", coding: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=coding)
    return file.getvalue()


def over_the_wire(result: Cut | BadPicture) -> Cut | BadPicture:
    """As it comes back from a worker."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(result), type=Cut | BadPicture)


def done(data: bytes | memoryview, job: AudioJob = JOB) -> tuple[Cut, Any]:
    result = cut(data, job)
    assert isinstance(result, Cut), result
    samples, rate = soundfile.read(io.BytesIO(result.data))
    assert rate == job.sample_rate
    assert samples.ndim == 1
    assert len(samples) == round(result.seconds_out * rate)
    assert result.tokens == job.tokens(len(samples)) <= job.max_tokens
    assert over_the_wire(result) == result
    return result, samples


def refused(data: bytes, job: AudioJob = JOB) -> BadPicture:
    result = cut(data, job)
    assert isinstance(result, BadPicture), result
    assert over_the_wire(result) == result
    return result


def loudest_hertz(samples: Any, rate: int = 16_000) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(samples))) * rate / len(samples))


@pytest.mark.parametrize(("kind", "coding"), FORMATS)
@pytest.mark.parametrize("channels", [1, 2])
def test_each_format_keeps_its_sound(kind: str, coding: str, channels: int) -> None:
    result, samples = done(clip(tone(channels=channels), 48_000, kind, coding))
    assert result.seconds_in == pytest.approx(2.0, abs=0.08)  # MP3 and Opus have frames of a fixed length
    assert result.seconds_out == pytest.approx(result.seconds_in, abs=0.001)
    assert (result.was_cut, result.silence) == (False, 0)
    assert loudest_hertz(samples) == pytest.approx(440, abs=2)
    assert np.sqrt(np.mean(samples[1600:-1600] ** 2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 96_000])
def test_each_rate_becomes_the_models(rate: int) -> None:
    result, samples = done(clip(tone(rate=rate), rate))
    assert result.seconds_in == result.seconds_out == 2.0
    assert loudest_hertz(samples) == pytest.approx(440, abs=1)


def test_what_the_models_rate_cannot_hold_is_filtered_out_and_not_folded_down() -> None:
    _, samples = done(clip(tone(hertz=11_000.0)))
    assert np.abs(samples[1600:-1600]).max() < 0.001


def test_a_clip_at_the_models_rate_is_left_as_it_is() -> None:
    source = tone(rate=16_000)
    _, samples = done(clip(source, 16_000))
    assert np.abs(samples - source[:, 0]).max() < 2 / 32768


def test_base64_as_requests_have_it() -> None:
    job = AudioJob(12.5, 50, is_base64=True)
    assert done(memoryview(base64.b64encode(WAV)), job)[0].seconds_in == 2.0
    for junk in (b"!!!!", base64.b64encode(WAV)[:-1], base64.encodebytes(WAV)):
        refusal = refused(junk, job)
        assert (refusal.reason, "base64 cannot be read" in refusal.message) == ("audio_base64", True)


def test_a_long_clip_is_cut_to_the_budget_and_a_short_one_padded_if_asked() -> None:
    result, samples = done(clip(tone(7.0)))
    assert (result.seconds_in, result.seconds_out, result.tokens) == (7.0, 4.0, 50)
    assert result.was_cut
    assert len(samples) == 64_000
    assert loudest_hertz(samples) == pytest.approx(440, abs=1)

    result, samples = done(clip(tone(1.0)), AudioJob(12.5, 50, pad=True))
    assert (result.seconds_in, result.seconds_out, result.silence, result.tokens) == (1.0, 4.0, 3.0, 50)
    assert not result.was_cut
    assert not samples[16_000:].any()
    assert samples[:16_000].any()

    result, _ = done(clip(tone(1.0)))
    assert (result.tokens, result.silence) == (13, 0)


def test_512_tokens_at_25_a_second() -> None:
    result, _ = done(clip(tone(30.0, rate=16_000), 16_000), AudioJob(tokens_per_second=25, max_tokens=512))
    assert (result.seconds_out, result.tokens) == (20.48, 512)


def test_a_rate_that_binary_fractions_cannot_hold() -> None:
    job = AudioJob(tokens_per_second=1.1, max_tokens=33)
    assert (job.max_samples, job.tokens(480_000)) == (480_000, 33)


@given(st.floats(0.5, 200), st.integers(1, 4000), st.sampled_from([8_000, 16_000, 24_000]))
def test_the_budget_is_filled_and_never_passed(tokens_per_second: float, max_tokens: int, rate: int) -> None:
    job = AudioJob(tokens_per_second, max_tokens, sample_rate=rate)
    assert job.tokens(job.max_samples) <= max_tokens < job.tokens(job.max_samples + 2)


def test_a_length_that_the_header_does_not_tell() -> None:
    """As a program writes it that sends FLAC or WAV through a pipe."""
    flac = bytearray(clip(tone(7.0, rate=16_000), 16_000, "FLAC"))
    flac[21] &= 0xF0  # the number of samples: 36 bits of the first block
    flac[22:26] = bytes(4)
    result, _ = done(bytes(flac))
    assert (result.seconds_in, result.seconds_out) == (7.0, 4.0)
    too_long = refused(bytes(flac), AudioJob(12.5, 50, max_seconds=5))
    assert too_long.reason == "audio_too_long"

    wav = bytearray(clip(tone(7.0, rate=16_000), 16_000))
    wav[4:8] = wav[40:44] = b"\xff\xff\xff\xff"
    assert done(bytes(wav))[0].seconds_in == 7.0


def header_says(data: bytes, seconds: int) -> bytes:
    """A FLAC whose header tells another number of samples, at 16 kHz."""
    flac = bytearray(data)
    flac[21] = flac[21] & 0xF0 | (seconds * 16_000) >> 32
    flac[22:26] = (seconds * 16_000 & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(flac)


WAV, FLAC = clip(tone()), clip(tone(rate=16_000), 16_000, "FLAC")
MP3, OGG = clip(tone(), kind="MP3", coding="MPEG_LAYER_III"), clip(tone(), kind="OGG", coding="VORBIS")
REFUSED = {
    "nothing": (b"", "audio_empty", "has no bytes"),
    "no samples": (clip(tone(0)), "audio_empty", "has no samples"),
    "text": (b"hello, this is a text", "audio_format", "its first bytes are 68 65 6c 6c 6f"),
    "mp4": (bytes(4) + b"ftypM4A " + bytes(100), "audio_format", "is MP4 or M4A, which is not read here"),
    "webm": (b"\x1a\x45\xdf\xa3" + bytes(100), "audio_format", "is WebM or Matroska"),
    "aac": (b"\xff\xf1" + bytes(100), "audio_format", "is AAC"),
    "jpeg": (b"\xff\xd8\xff\xe0" + bytes(100), "audio_format", "is a JPEG picture"),
    "aiff": (clip(tone(), kind="AIFF"), "audio_format", "ffmpeg -i clip -ar 16000 -ac 1 clip.wav"),
    "adpcm": (clip(tone(), coding="IMA_ADPCM"), "audio_format", "is WAV with IMA_ADPCM"),
    "wav cut": (WAV[: len(WAV) // 2], "audio_broken", "is cut short: 192044 bytes by its header, of which 96022"),
    "flac cut": (FLAC[: len(FLAC) // 2], "audio_broken", "cut short or damaged"),
    "mp3 cut": (MP3[: len(MP3) // 2], "audio_broken", "is cut short"),
    "mp3 junk": (b"ID3" + bytes(500), "audio_broken", "cut short or damaged"),
    "ogg junk": (OGG[:100] + bytes(500), "audio_broken", "cut short or damaged"),
    "wav junk": (b"RIFF\x40\0\0\0WAVE" + bytes(200), "audio_broken", "cut short or damaged"),
    "not numbers": (clip(np.full(1000, np.nan), coding="FLOAT"), "audio_broken", "samples that are no numbers"),
    "channels": (clip(tone(0.1, channels=9)), "audio_channels", "has 9 channels: at most 8"),
    "slow": (clip(tone(0.5, rate=1_000), 1_000), "audio_rate", "has 1000 samples a second: 4000 to 192000"),
    "fast": (clip(tone(0.1, rate=768_000), 768_000), "audio_rate", "has 768000 samples"),
    "long": (
        clip(np.zeros(301 * 4_000), 4_000, coding="PCM_U8"),
        "audio_too_long",
        "is 301.0 s long or more: at most 300 s",
    ),
    "lie": (header_says(FLAC, 4_000_000), "audio_too_long", "is 4000000.0 s long"),
    "small lie": (header_says(FLAC, 3), "audio_broken", "32000 samples were found of 48000 by its header"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str) -> None:
    data, reason, words = REFUSED[case]
    refusal = refused(data)
    assert (refusal.status, refusal.reason) == (400, reason)
    assert words in refusal.message
    assert refusal.message.endswith(".")


def test_the_decoded_size_is_known_before_decoding() -> None:
    job = AudioJob(12.5, 10_000, max_seconds=10_000, max_decoded_bytes=1_000_000)
    refusal = refused(clip(np.zeros(3_000_000), coding="PCM_U8"), job)
    assert refusal.reason == "audio_too_large"
    assert "would be 12262144 bytes when decoded: at most 1000000" in refusal.message
    assert done(clip(np.zeros(3_000_000), coding="PCM_U8"), AudioJob(12.5, 10, max_decoded_bytes=1_000_000))[0].was_cut


def test_without_the_libraries_a_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing() is None
    for name in ("soundfile", "soxr"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("launcher.gateway.media.audio.find_spec", lambda name: sys.modules.get(name))
    refusal = refused(WAV)
    assert (refusal.status, refusal.reason) == (501, "audio_not_installed")
    assert "soundfile and soxr are not installed (pip install 'vllm-profile-launcher[audio]')" in refusal.message


@given(st.data())
def test_damage_gives_a_clip_or_a_sentence_and_never_an_error(data: st.DataObject) -> None:
    source = bytearray(data.draw(st.sampled_from([WAV[:4000], FLAC[:4000], MP3[:4000], OGG[:6000]])))
    for _ in range(data.draw(st.integers(1, 8))):
        source[data.draw(st.integers(4, len(source) - 1))] = data.draw(st.integers(0, 255))
    result = cut(bytes(source), AudioJob(12.5, 10, max_seconds=20))
    assert isinstance(result, Cut | BadPicture)
