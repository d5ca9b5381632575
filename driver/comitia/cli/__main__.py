from comitia.cli import main

main()
