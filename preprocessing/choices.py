"""What the settings of data may be, without pandas: a command line is read before it is imported."""

PROTOCOLS = ("strict", "paper", "temporal")
KUAIRAND_LABELS = ("is_click", "long_view")  # columns of its logs
