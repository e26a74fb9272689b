"""Write a comparison of runs as one HTML file, with every question and who said what."""
