"""AutoInt: self-attention over the fields beside a deep network (Song et al., CIKM 2019)."""

from model.deepctr import adapt

AutoInt = adapt("AutoInt")
