"""A site's executor that answers as the experiment's faults say, whatever its policy allows."""

import json
import sys
from functools import partial
from pathlib import Path

from fedkd.federation.compat.tasks import run_client_task
from fedkd.federation.deploy import executor


def answer(file, address, token, parent):
    import staged

    from fedkd.federation.client import client_app
    from fedkd.federation.deploy import siteapp

    executor._log_here()
    honest = client_app(partial(siteapp.party, Path(file)))

    def app(message, context):
        faults = json.loads(context.run_config["experiment"])["method"].get("faults", {})
        return staged.StagedApp(honest, faults)(message, context)

    run_client_task(app, address=address, token=token, parent=parent)


if __name__ == "__main__":
    executor._answer = answer
    executor.main(*sys.argv[1:])
