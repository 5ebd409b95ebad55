"""What the settings of data may be, without pandas: a command line is read before it is imported."""

PROTOCOLS = ("strict", "paper", "temporal", "online")
BY_TIME = ("temporal", "online")  # those that split by time
# What a row is told of its user's and its item's labels; each holds the one before it.
STATISTICS = ("means", "residuals", "crossed")
KUAIRAND_LABELS = ("is_click", "long_view")  # columns of its logs
