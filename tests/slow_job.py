"""A job of several blocks, run as a process of its own: `python slow_job.py '{"out": ..., ...}'`.

It prints the number of each block that it computes, and goes on from those already there.
"""

import json
import sys
import time

from geoml_cli import cli
from geoml_cli.formats.digest import digest_file
from geoml_cli.formats.stamp import Input
from geoml_cli.log import start_log
from geoml_cli.manners import Manners
from geoml_cli.stages.job import Job


def work(argv: list[str]) -> int:
    given = {"blocks": 20, "pause_s": 0.03, "size": 1000, "inputs": [], "manners": {}} | json.loads(
        argv[1]
    )
    manners = Manners(**given["manners"])
    start_log(manners)
    inputs = [Input(path, "scene", digest_file(path)) for path in given["inputs"]]
    arguments = {"blocks": given["blocks"], "size": given["size"]}
    with Job("tile", given["out"], "tiles", "tileset.json", arguments, inputs, manners) as job:
        if not job.done:
            for i in range(given["blocks"]):
                job.check()
                block = job.part / f"{i:03d}.bin"
                if block.is_file() and block.stat().st_size == given["size"]:
                    continue
                block.write_bytes(bytes([i % 256]) * given["size"])
                print(i, flush=True)
                time.sleep(given["pause_s"])
            job.commit({"blocks": given["blocks"]})
    job.report([job.stamp])
    return 0


if __name__ == "__main__":
    cli.dispatch = work
    cli.main(["tile", sys.argv[1]])
