"""What every run needs beside its mathematics: files, processes, random streams, progress."""
