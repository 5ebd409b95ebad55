"""What the settings of an index may be, without numpy: a command line is read before it is imported."""

DTYPES = ("float32", "float16", "int8")
