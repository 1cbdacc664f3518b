"""What the fuzzer has to know of this API: which names exist, and what is no failure.

The engine may refuse anything, and may say that it has not built a thing (501) or that something it
needs is not there (503). It may not fail (any other 5xx), hang, or answer with nothing.
"""

import os
import random

import schemathesis

# Made by the script that starts this; removed and made again while it runs, which is half the point.
NAMES = os.environ["FUZZ_NAMES"].split()


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    for name in path_parameters or {}:
        if random.random() < 0.7:
            path_parameters[name] = random.choice(NAMES)
    return path_parameters


@schemathesis.hook
def map_query(context, query):
    query = dict(query or {})
    operation = context.operation.definition.raw.get("operationId")
    for endless in ("stream", "follow"):
        query.pop(endless, None)
    if operation == "ContainerStats":
        query["stream"] = "false"
    if operation == "ImageCreate":
        # What is imported comes with the request; no other machine is asked.
        query["fromSrc"] = "-"
        query.pop("fromImage", None)
    if operation == "ImageBuild":
        query.pop("remote", None)
    return query


@schemathesis.hook
def map_body(context, body):
    if isinstance(body, dict) and "Image" in body and random.random() < 0.8:
        body["Image"] = "busybox"
    return body


@schemathesis.serializer("application/x-tar")
def no_tar_at_all(context, value):
    return value if isinstance(value, bytes) else str(value).encode()


@schemathesis.check
def refuses_but_does_not_fail(context, response, case):
    if response.status_code >= 500 and response.status_code not in (501, 503):
        raise AssertionError(f"{response.status_code}: {response.content[:500]!r}")
    if response.status_code >= 400 and not response.content and case.method.upper() != "HEAD":
        raise AssertionError("an error without a word")
