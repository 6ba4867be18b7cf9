"""How a training set is split among the clients."""

from typing import Annotated, Literal

from pydantic import Field

from fedkd.config.parts import Frozen


class Iid(Frozen):
    """Equal random shares."""

    scheme: Literal["iid"] = "iid"


class Shards(Frozen):
    """Sort by label, cut into equal shards, deal each client some of them (arXiv:1602.05629)."""

    scheme: Literal["shards"]
    per_client: int = Field(default=2, ge=1)


class Natural(Frozen):
    """The split that the data brings: `client_train` in an .npz, the client column in a CSV."""

    scheme: Literal["natural"]


class Dirichlet(Frozen):
    """One of the three draws that papers all call Dirichlet.

    `dirichlet`: per class, shares over clients from Dir(alpha). `dirichlet-balanced`: the same, but
    a client that holds its fair share already gets nothing more (DENSE, arXiv:2112.12371).
    `dirichlet-client`: per client, a class prior from Dir(alpha); equal sizes (Co-Boosting).
    """

    scheme: Literal["dirichlet", "dirichlet-balanced", "dirichlet-client"]
    alpha: float = Field(default=0.5, gt=0)
    min_size: int = Field(default=10, ge=1)
    """The fewest samples that a client may end with."""


Partition = Annotated[Iid | Shards | Natural | Dirichlet, Field(discriminator="scheme")]
