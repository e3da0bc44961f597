"""The field lab: bad links, and later fleets of sites, to try Packhorse as it is used in the field.

`link` spoils a TCP link, `cli` is the program `field-lab`, `sample_data` holds the CSV files of the demo.
"""
