"""How good demonstrations are: measures, marks, outliers, and a page that shows them."""
