"""What the programs of this folder write: a line of JSON for each event that their library gave them."""

import json


def show(id, type, data):
    print(json.dumps({"id": id, "type": type, "data": data}), flush=True)
