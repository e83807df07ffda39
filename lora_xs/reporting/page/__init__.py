"""The report: everything from records on one page of HTML that needs no network."""
