"""Wide&Deep: a linear model beside a deep network (Cheng et al., DLRS 2016)."""

from model.deepctr import adapt

WDL = adapt("WDL")
