"""What TinyGen tells people: tables on stdout.  Reads plans and results, changes none."""
