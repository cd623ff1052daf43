"""Tests of what the gateway does with pictures and clips."""
