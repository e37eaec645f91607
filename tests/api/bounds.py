"""What schemathesis must know besides docs/openapi.json: that streams are to end, and what a body of lines is."""

import schemathesis


@schemathesis.hook
def before_call(context, case, kwargs):
    # Without it a stream ends by being cut, after stream.age_max, which is an error to whoever reads bodies to their end.
    if case.method == "GET" and case.path.startswith("/events"):
        case.query = {**(case.query or {}), "max_age": "1ms"}


@schemathesis.serializer("application/x-ndjson", "application/jsonl", "application/x-jsonlines")
def lines(context, value):
    return value if isinstance(value, bytes) else str(value).encode()
