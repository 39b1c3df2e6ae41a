"""Names of countries, and words for nationalities, peoples, religions and parties, by the demonyms of states and common usage."""

import re

_DEMONYMS_TEXT = r"""
Afghan Albanian Algerian American Andorran Angolan Argentine Argentinian Argentinean Armenian Australian Austrian Azerbaijani
Bahamian Bahraini Bangladeshi Barbadian Belarusian Belgian Belizean Beninese Bermudian Bhutanese Bolivian Bosnian Brazilian Briton
British Bruneian Bulgarian Burkinabe Burmese Burundian Cambodian Cameroonian Canadian Chadian Chechen Chilean Chinese Colombian
Comoran Congolese Croat Croatian Cuban Cypriot Czech Dane Danish Djiboutian Dominican Dutch Dutchman Ecuadorean Ecuadorian
Egyptian Emirati Englishman English Eritrean Estonian Ethiopian Fijian Filipino Finn Finnish Frenchman French Gabonese Gambian
Georgian German Ghanaian Gibraltarian Greek Greenlander Grenadian Guatemalan Guinean Guyanese Haitian Honduran Hungarian Icelander
Icelandic Indian Indonesian Iranian Iraqi Irish Irishman Israeli Italian Ivorian Jamaican Japanese Jordanian Kazakh Kenyan Korean
Kosovar Kuwaiti Kyrgyz Laotian Latvian Lebanese Lesothan Liberian Libyan Liechtensteiner Lithuanian Luxembourger Macedonian
Malagasy Malawian Malaysian Maldivian Malian Maltese Mauritanian Mauritian Mexican Moldovan Monegasque Mongolian Montenegrin
Moroccan Mozambican Namibian Nepalese Nepali Nicaraguan Nigerian Nigerien Norwegian Omani Pakistani Palestinian Panamanian
Paraguayan Peruvian Pole Portuguese Puerto\sRican Qatari Romanian Russian Rwandan Salvadoran Samoan Saudi Scot Scottish Scotsman
Senegalese Serb Serbian Singaporean Slovak Slovakian Slovene Slovenian Somali Spaniard Spanish Sudanese Surinamese Swazi Swede
Swedish Swiss Syrian Taiwanese Tajik Tanzanian Thai Togolese Tongan Trinidadian Tunisian Turk Turkish Turkmen Ugandan Ukrainian
Uruguayan Uzbek Venezuelan Vietnamese Welsh Welshman Yemeni Zambian Zimbabwean
"""
_DEMONYMS = _DEMONYMS_TEXT.split()
_BELIEFS = [
    "Muslim",
    "Christian",
    "Jewish",
    "Jew",
    "Buddhist",
    "Hindu",
    "Sikh",
    "Catholic",
    "Protestant",
    "Mormon",
    "Sunni",
    "Shiite",
    "Shi'ite",
    "Shia",
    "Atheist",
    "Orthodox\\sChristian",
]
# These are everyday words unless they begin with a capital letter.
_CAPITALISED = ("Polish", "Republican", "Democrat", "Hispanic", "Latino", "Latina", "Kurd", "Kurdish", "Arab", "Roma")

# Names of things, not of people: the letters of an alphabet, a salad, a muffin.
_THINGS = r"(?!\s+(?:alphabet|numerals?|salad|muffins?|fries|toast|bulldog|shepherd|vanilla|express\b|airlines|dressing|yoghurt|yogurt))"
_ANY_CASE = "|".join(sorted([*_DEMONYMS, *_BELIEFS], key=len, reverse=True))
PEOPLES = re.compile(rf"(?<![\w-])(?:(?i:{_ANY_CASE})|(?:{'|'.join(_CAPITALISED)}))s?(?![\w-]){_THINGS}")

# Without those that are also given names or everyday words: Chad, Georgia, Jordan, Jersey.
_COUNTRIES_TEXT = r"""
Afghanistan Albania Algeria Andorra Angola Argentina Armenia Australia Austria Azerbaijan Bahamas Bahrain Bangladesh Barbados
Belarus Belgium Belize Benin Bermuda Bhutan Bolivia Bosnia Botswana Brazil Brunei Bulgaria Burkina\sFaso Burundi Cambodia Cameroon
Canada Cape\sVerde Chile China Colombia Congo Costa\sRica Croatia Cuba Cyprus Czechia Czech\sRepublic Denmark Djibouti
Dominican\sRepublic Ecuador Egypt El\sSalvador England Eritrea Estonia Ethiopia Faroe\sIslands Fiji Finland France Gabon Gambia
Germany Ghana Gibraltar Greece Greenland Grenada Guatemala Guinea Guyana Haiti Honduras Hong\sKong Hungary Iceland India Indonesia
Iran Iraq Ireland Israel Italy Ivory\sCoast Jamaica Japan Kazakhstan Kenya Kosovo Kuwait Kyrgyzstan Laos Latvia Lebanon Lesotho
Liberia Libya Liechtenstein Lithuania Luxembourg Macao Madagascar Malawi Malaysia Maldives Mali Malta Mauritania Mauritius Mexico
Moldova Monaco Mongolia Montenegro Morocco Mozambique Myanmar Namibia Nepal Netherlands New\sZealand Nicaragua Niger Nigeria
North\sKorea North\sMacedonia Northern\sIreland Norway Oman Pakistan Palestine Panama Paraguay Peru Philippines Poland Portugal
Puerto\sRico Qatar Romania Russia Rwanda Samoa San\sMarino Saudi\sArabia Scotland Senegal Serbia Seychelles Sierra\sLeone
Singapore Slovakia Slovenia Somalia South\sAfrica South\sKorea South\sSudan Spain Sri\sLanka Sudan Suriname Svalbard Swaziland
Sweden Switzerland Syria Taiwan Tajikistan Tanzania Thailand Togo Tonga Trinidad Tunisia Türkiye Turkmenistan Uganda Ukraine
United\sArab\sEmirates United\sKingdom United\sStates(?:\sof\sAmerica)? Uruguay Uzbekistan Vanuatu Vatican Venezuela Vietnam Wales
Yemen Zambia Zimbabwe
"""
_COUNTRIES = _COUNTRIES_TEXT.split()
COUNTRIES = re.compile(rf"(?<![\w-])(?:{'|'.join(sorted(_COUNTRIES, key=len, reverse=True))})(?![\w-])")
