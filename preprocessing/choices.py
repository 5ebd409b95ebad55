"""What the settings of data may be, without pandas: a command line is read before it is imported."""

PROTOCOLS = ("strict", "paper", "temporal")
