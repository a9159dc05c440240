"""Human seed data: files, formats and the split."""
