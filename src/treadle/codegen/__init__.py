"""Code generators: loop programs in, machine code out."""
