"""The report: one HTML page of everything that the records say, made to be read from disk, on a phone and in print."""
