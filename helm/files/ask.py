"""Asks the endpoint one question and prints the answer; ends with 1 where there is none. Standard library only."""

import json
import os
import ssl
import sys
import urllib.error
import urllib.request

ENDPOINT, MODEL = os.environ["ENDPOINT"], os.environ.get("MODEL", "")
# name=secret,… or secret,…: the first one's secret
FIRST = os.environ.get("LAUNCHER_API_KEYS", "").split(",")[0].strip()
NAME, _, REST = FIRST.partition("=")
KEY = REST if REST.strip("=") else FIRST


def call(path, body=None):
    headers = {"Content-Type": "application/json"}
    if KEY:
        headers["Authorization"] = "Bearer " + KEY
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(ENDPOINT + path, data, headers)
    # within the cluster its certificate, if it has one, names the public host
    unchecked = ssl._create_unverified_context()
    with urllib.request.urlopen(request, timeout=300, context=unchecked) as answer:
        return json.load(answer)


try:
    model = MODEL or call("/v1/models")["data"][0]["id"]
    question = [{"role": "user", "content": "What is the capital of France?"}]
    answer = call("/v1/chat/completions", {"model": model, "messages": question, "max_tokens": 32})
    text = answer["choices"][0]["message"]["content"]
    print(f"{model}: {text}")
    sys.exit(0 if text is not None else 1)
except urllib.error.HTTPError as error:
    print(f"{ENDPOINT}: {error.code} {error.reason}: {error.read().decode(errors='replace')}", file=sys.stderr)
except OSError as error:
    print(f"{ENDPOINT}: {error}", file=sys.stderr)
sys.exit(1)
