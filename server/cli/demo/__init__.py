"""`fairlead demo`: a whole fleet of real processes on this machine, and two acts."""
