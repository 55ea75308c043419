"""Datasets, near duplicates and views: what is made of catalogs."""
