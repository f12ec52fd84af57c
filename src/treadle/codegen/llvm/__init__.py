"""The LLVM back end: text IR in, object code out."""
