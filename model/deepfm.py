"""DeepFM: a factorisation machine and a deep network on shared embeddings (Guo et al., IJCAI 2017)."""

from model.deepctr import adapt

DeepFM = adapt("DeepFM")
