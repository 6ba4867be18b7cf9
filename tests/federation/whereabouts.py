"""FedMD whose clients write down on which of a cluster's nodes they trained."""

from pathlib import Path

import ray

from fedkd.methods.fedmd import FedMD, FedMDParams


class WhereaboutsParams(FedMDParams):
    folder: str


class Whereabouts(FedMD):
    Params = WhereaboutsParams

    def client(self, ctx, broadcast):
        node = ray.get_runtime_context().get_node_id()
        (Path(self.params.folder) / f"{ctx.client}-{ctx.round}").write_text(node)
        return super().client(ctx, broadcast)
