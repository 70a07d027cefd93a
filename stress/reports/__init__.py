"""What is reported of a campaign. One plain document is made of the results, and every report is made of it alone:
table, JSON, JUnit, HTML, picture. So a report read back from its JSON file looks as it did on the day."""
