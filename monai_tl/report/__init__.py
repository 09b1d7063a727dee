"""What a person reads: tables, figures, the HTML report."""
