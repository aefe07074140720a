"""Making data sets: tables and photos become checked, split and audited files, which `riskva.data` reads."""
