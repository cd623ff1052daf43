"""A fuzzer, guided by coverage, for all that reads bytes from outside: ``python -m tests.fuzz --seconds 60``."""
