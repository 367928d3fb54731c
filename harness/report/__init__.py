"""Reports: records to tables, plots and a page, computed first and drawn after."""
