"""List all networks of the zoo, by name."""

from benchmarks.zoo_networks import libraries, own, senses, texts
from benchmarks.zoo_networks.declaration import Network

NETWORKS: dict[str, Network] = {}
for declared in (*own.NETWORKS, *texts.NETWORKS, *senses.NETWORKS, *libraries.NETWORKS):
    if declared.name in NETWORKS:
        raise ValueError(f"two networks of the zoo are called {declared.name}")
    NETWORKS[declared.name] = declared
