"""Figures of both papers, from the cells of tables and from records; published and ours never look alike."""
